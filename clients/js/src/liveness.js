/**
 * Whether the other side still lives, from nothing but that it is heard.
 *
 * A few beats that do not come mean death. A page that slept, or was busy, finds its silence full of what it did not
 * read: so death is pronounced only after a second look, and who came late to a look waits as long again, up to a second.
 */

/** Looks at most: a page that is late at each of them is told that it cannot hear. */
const LOOKS_MAX = 5;
const LATE_MAX_S = 1;
const SMOOTHING = 0.1;

/** One connection's. Seconds. */
export function liveness({ stretchMax, missedMax, lookS }, beatS, now, silenceMinS = 0) {
  let heardAt = now;
  let gapS = beatS;
  let looks = 0;
  let lookAt = 0;
  let pauseS = 0;

  return {
    beatS,

    /** When anything was heard last. */
    get heardAt() {
      return heardAt;
    },

    /** Something was received. */
    heard(at) {
      const silentS = at - heardAt;
      if (silentS * 2 > beatS) gapS += SMOOTHING * (silentS - gapS); // what comes sooner says nothing of beats
      heardAt = at;
      looks = 0;
    },

    /** When to look. A gateway that beats late is waited for longer; one that promised no beat, for ever. */
    wakeAt() {
      if (looks) return lookAt;
      const patienceS = missedMax * Math.min(Math.max(gapS, beatS), beatS * stretchMax);
      return beatS > 0 ? heardAt + Math.max(silenceMinS, patienceS) : Infinity;
    },

    /** Looks; whether it is dead. */
    wake(at) {
      const lateS = at - this.wakeAt();
      if (!(lateS >= 0)) return false;
      if (looks === LOOKS_MAX || (looks && lateS <= pauseS)) return true;
      looks++;
      pauseS = Math.max(lookS, Math.min(lateS, LATE_MAX_S));
      lookAt = at + pauseS;
      return false;
    },
  };
}

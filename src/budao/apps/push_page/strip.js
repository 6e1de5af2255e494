/** Draws the messages of the last half minute: when each was published, how long it took, and who told it. */

const SPAN_S = 30;
const LEFT = 58;
const RIGHT = 14;
const TOP = 26;
const LANE = 7;
const BOTTOM = 30;
const LATENCIES_MS = [1, 10, 100, 1000, 10000];
const SAID = ['1 ms', '10 ms', '100 ms', '1 s', '10 s'];
const FONT = '12px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
const COLOURS = ['ink', 'soft', 'line', 'paper', 'card', 'live', 'replayed', 'before', 'gap', 'lane-0', 'lane-1'];

export class Strip {
  #dots = [];
  #marks = [];
  #colours = {};

  constructor(canvas) {
    this.canvas = canvas;
    const dark = matchMedia('(prefers-color-scheme: dark)');
    dark.addEventListener('change', () => this.#look());
    this.#look();
    this.everyMs = matchMedia('(prefers-reduced-motion: reduce)').matches ? 1000 : 50;
    let drawn = 0;
    const draw = (at) => {
      if (at - drawn >= this.everyMs) {
        drawn = at;
        this.draw();
      }
      requestAnimationFrame(draw);
    };
    requestAnimationFrame(draw);
  }

  #look() {
    const style = getComputedStyle(document.documentElement);
    for (const name of COLOURS) this.#colours[name] = style.getPropertyValue(`--${name}`).trim();
  }

  /** A message: `at` in Unix seconds, `kind` live, replayed or before, `lane` the number of the gateway. */
  message({ at, ms, kind, lane }) {
    this.#dots.push({ at, ms, kind, lane });
    this.#forget();
  }

  /** What is missing, between two messages. */
  gap(from, to) {
    this.#dots.push({ at: to, from, kind: 'gap' });
  }

  /** Something that happened. */
  mark(text) {
    this.#marks.push({ at: Date.now() / 1000, text });
  }

  /** In words, for who does not see it. */
  get summary() {
    const seen = this.#dots.filter((dot) => dot.at > Date.now() / 1000 - SPAN_S);
    const count = (kind) => seen.filter((dot) => dot.kind === kind).length;
    const worst = Math.max(0, ...seen.map((dot) => (dot.kind === 'before' ? 0 : dot.ms ?? 0)));
    return `The last ${SPAN_S} seconds: ${seen.length} messages, ${count('replayed')} of them replayed, ` +
      `${count('gap')} gaps, the slowest took ${Math.round(worst)} ms`;
  }

  #forget() {
    const since = Date.now() / 1000 - SPAN_S - 5;
    if (this.#dots.length > 50 && this.#dots[20].at < since) this.#dots = this.#dots.filter((dot) => dot.at >= since);
    this.#marks = this.#marks.filter((mark) => mark.at >= since);
  }

  draw() {
    const { canvas } = this;
    const { clientWidth: width, clientHeight: height } = canvas;
    const scale = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const paint = canvas.getContext('2d');
    paint.setTransform(scale, 0, 0, scale, 0, 0);
    paint.clearRect(0, 0, width, height);
    paint.font = FONT;
    const now = Date.now() / 1000;
    const floor = height - BOTTOM;
    const x = (at) => LEFT + (width - LEFT - RIGHT) * (1 - (now - at) / SPAN_S);
    const y = (ms) => floor - 8 - ((floor - 8 - TOP) * Math.log10(Math.min(Math.max(ms, 1), 10000))) / 4;
    this.#grid(paint, width, height, y, x, now);
    this.#lanes(paint, floor, x);
    this.#events(paint, floor, x);
    for (const dot of this.#dots) if (x(dot.at) >= LEFT) this.#dot(paint, dot, x, y, floor);
  }

  #grid(paint, width, height, y, x, now) {
    const { soft, line } = this.#colours;
    paint.lineWidth = 1;
    paint.strokeStyle = line;
    paint.fillStyle = soft;
    paint.textBaseline = 'middle';
    paint.textAlign = 'right';
    LATENCIES_MS.forEach((ms, index) => {
      const at = Math.round(y(ms)) + 0.5;
      paint.beginPath();
      paint.moveTo(LEFT, at);
      paint.lineTo(width - RIGHT, at);
      paint.stroke();
      paint.fillText(SAID[index], LEFT - 8, at);
    });
    paint.textBaseline = 'alphabetic';
    for (let ago = 0; ago <= SPAN_S; ago += width < 700 ? 10 : 5) {
      paint.textAlign = ago ? 'center' : 'right';
      if (ago < SPAN_S) paint.fillText(ago ? `${ago} s ago` : 'now', x(now - ago), height - 5);
    }
  }

  /** Which gateway told it, as a band under the dots. */
  #lanes(paint, floor, x) {
    let last = null;
    for (const dot of this.#dots) {
      if (dot.kind === 'gap' || dot.kind === 'before') continue;
      const from = Math.max(LEFT, last === null || last.lane !== dot.lane ? x(dot.at) - 3 : x(last.at));
      if (x(dot.at) >= LEFT) {
        paint.fillStyle = this.#colours[`lane-${dot.lane % 2}`];
        paint.fillRect(from, floor, Math.max(1, x(dot.at) + 3 - from), LANE);
      }
      last = dot;
    }
  }

  #events(paint, floor, x) {
    paint.textAlign = 'left';
    let free = -Infinity;
    for (const { at, text } of this.#marks) {
      const from = x(at);
      if (from < LEFT) continue;
      paint.strokeStyle = this.#colours.soft;
      paint.setLineDash([2, 3]);
      paint.beginPath();
      paint.moveTo(Math.round(from) + 0.5, TOP - 8);
      paint.lineTo(Math.round(from) + 0.5, floor + LANE);
      paint.stroke();
      paint.setLineDash([]);
      const width = paint.measureText(text).width;
      const left = Math.max(Math.min(from, this.canvas.clientWidth - RIGHT - width), LEFT);
      if (left < free) continue; // no room: what happened is in the list as well
      paint.fillStyle = this.#colours.ink;
      paint.fillText(text, left, TOP - 12);
      free = left + width + 12;
    }
  }

  #dot(paint, { at, ms, kind, from }, x, y, floor) {
    const colour = this.#colours[kind];
    paint.fillStyle = colour;
    paint.strokeStyle = colour;
    if (kind === 'gap') {
      paint.fillRect(Math.max(LEFT, x(from)), floor - 6, Math.max(4, x(at) - x(from)), 5);
      return;
    }
    paint.beginPath();
    if (kind === 'replayed') {
      const size = 4.5;
      paint.moveTo(x(at), y(ms) - size);
      paint.lineTo(x(at) + size, y(ms));
      paint.lineTo(x(at), y(ms) + size);
      paint.lineTo(x(at) - size, y(ms));
      paint.fill();
    } else if (kind === 'before') {
      paint.lineWidth = 1.5;
      paint.arc(x(at), y(1), 2.4, 0, 2 * Math.PI);
      paint.stroke();
    } else {
      paint.arc(x(at), y(ms), 3, 0, 2 * Math.PI);
      paint.fill();
    }
  }
}

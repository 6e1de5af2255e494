/** Real gateways over one real log, as processes, to be killed and frozen. The Python is the one that runs these tests. */
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const PYTHON = process.env.BUDAO_PYTHON ?? join(ROOT, '.venv/bin/python');
const SETTINGS = '[session]\nbeat_min_s = 0.05\npublishes_per_s = 1e5\npublishes_burst = 100000\nframes_per_s = 1e5\nframes_burst = 100000\n';

/** A program of budao that says as JSON where it listens. */
async function start(...args) {
  const child = spawn(PYTHON, ['-m', 'budao', ...args, '--json'], { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const lines = createInterface({ input: child.stdout });
  const said = await Promise.race([new Promise((resolve) => lines.once('line', resolve)), ended]);
  if (typeof said !== 'string') throw new Error(`budao ${args[0]} ended with ${said} before it listened`);
  return {
    ...JSON.parse(said),
    signal: (name) => child.kill(name),
    async kill() {
      child.kill('SIGKILL');
      await ended;
    },
    ended,
  };
}

/** Anybody may read and publish. */
export const OPEN = ['--anonymous-subscribe', '**', '--anonymous-publish', '**'];

/** Gateways over one log, in a new folder; `t` ends them. `argumentsOf` is told those that run already, and the folder. */
export async function gateways(t, count, argumentsOf = () => OPEN) {
  const folder = mkdtempSync(join(tmpdir(), 'budao-js-'));
  const all = [];
  t.after(async () => {
    for (const each of all.reverse()) await each.kill();
    rmSync(folder, { recursive: true });
  });
  const log = await start('log', 'serve', join(folder, 'log'), '--port', '0');
  all.push(log);
  const settings = join(folder, 'settings.toml');
  writeFileSync(settings, SETTINGS);
  const found = [];
  while (found.length < count) {
    const more = argumentsOf(found, folder);
    const common = ['--port', '0', '--log', `budao://127.0.0.1:${log.port}`, '--name', `g${found.length}`, '--settings', settings];
    const gateway = await start('gateway', ...common, ...more);
    found.push(gateway);
    all.push(gateway);
  }
  return found;
}

/** What `budao token` signs. */
export function token(key, ...args) {
  return execFileSync(PYTHON, ['-m', 'budao', 'token', '--key', key, ...args], { cwd: ROOT, encoding: 'utf8' }).trim();
}

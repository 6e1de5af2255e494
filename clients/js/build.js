/**
 * Makes dist/budao.js, one small file for pages, from src. `npm install && npm run build` after a change of src; a test
 * compares the fingerprint in its first line with src.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Names for us alone, beside those that begin with `_`: of no frame, no fact, and of nothing that users see. */
const OURS = [
  'answered', 'askedAt', 'bytesMax', 'canRefresh', 'failed', 'freeAt', 'heardAt', 'hurry', 'isDead', 'isStandby',
  'leftUntil', 'listening', 'liveness', 'livenessOf', 'reading', 'received', 'rested', 'sendRaw', 'until',
];

/** What src is: the first 16 digits of the SHA-256 of its files, in the order of their names. */
export function fingerprint() {
  const hash = createHash('sha256');
  const folder = new URL('src/', import.meta.url);
  for (const name of readdirSync(folder).sort()) hash.update(readFileSync(new URL(name, folder)));
  return hash.digest('hex').slice(0, 16);
}

async function build() {
  const { build: bundle } = await import('esbuild');
  const { minify } = await import('terser');
  const entry = fileURLToPath(new URL('src/index.js', import.meta.url));
  const made = await bundle({ entryPoints: [entry], bundle: true, format: 'esm', target: 'es2022', write: false });
  const small = await minify(made.outputFiles[0].text, {
    module: true,
    ecma: 2022,
    compress: { passes: 3, unsafe_arrows: true, unsafe_methods: true },
    mangle: { properties: { regex: new RegExp(`^_|^(${OURS.join('|')})$`) } },
    format: { preamble: `// Budao's push client, built from src ${fingerprint()}.` },
  });
  mkdirSync(new URL('dist/', import.meta.url), { recursive: true });
  writeFileSync(new URL('dist/budao.js', import.meta.url), `${small.code}\n`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await build();

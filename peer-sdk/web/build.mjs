// Builds the package into dist/, and says how large the core is without loro-crdt.
//
// What is published keeps its imports, so that an application's bundler takes what it uses and one copy of each library.
import { gzipSync } from 'node:zlib'
import { execFileSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { build } from 'esbuild'

const here = import.meta.dirname
const limit = 25 * 1024
const entries = ['index', 'react', 'loro-extended'].map(name => `${here}/src/${name}.ts`)
const common = { bundle: true, format: 'esm', target: 'es2022', logLevel: 'warning' }

rmSync(`${here}/dist`, { recursive: true, force: true })
await build({ ...common, entryPoints: entries, outdir: `${here}/dist`, splitting: true, packages: 'external', sourcemap: true })
execFileSync(process.execPath, [`${here}/node_modules/typescript/bin/tsc`, '-p', `${here}/tsconfig.json`], { stdio: 'inherit' })

/** What is loaded only when it is needed, and for what. */
const LATER = { seal: 'with a password', ice: 'with `iceFrom`', rehearsal: 'where Loro is yet to be loaded' }

/** What an application pays for these names, codec included, in bytes of gzip: at once, and when it needs more. */
async function cost (names) {
  const { outputFiles } = await build({
    ...common,
    stdin: { contents: `export { ${names} } from './src/index.ts'`, resolveDir: here },
    write: false,
    minify: true,
    splitting: true,
    outdir: '/out',
    absWorkingDir: here,
    external: ['loro-crdt']
  })
  const entry = outputFiles.filter(({ path }) => path.endsWith('stdin.js'))
  const size = files => files.reduce((sum, { contents }) => sum + gzipSync(contents, { level: 9 }).length, 0)
  const later = Object.keys(LATER).map(name => outputFiles.filter(({ path }) => path.includes(`${name}-`)))
  const expected = [entry, ...later].flat().length
  if (entry.length !== 1 || outputFiles.length !== expected) throw new Error('there are other chunks than were expected')
  return { core: size(entry), later: Object.values(LATER).map((when, n) => `${size(later[n])} more ${when}`).join(', ') }
}

const whole = await cost('Peer, websocket, indexedDB, webrtc, broadcastChannel')
const hubOnly = await cost('Peer, websocket, indexedDB')
console.log(`core without loro-crdt, gzipped: ${whole.core} bytes with every adapter (${whole.later}), ${hubOnly.core} without WebRTC; limit ${limit}`)
if (whole.core > limit) process.exitCode = 1

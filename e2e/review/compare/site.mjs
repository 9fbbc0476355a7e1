// The two pages that are compared, in one folder of plain files.
import { copyFile, mkdir, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import path from 'node:path'
import { build } from 'esbuild'
import { pack } from '../../../peer-sdk/web/examples/review/build.mjs'

const here = import.meta.dirname
const loro = path.dirname(createRequire(path.join(here, '../../../peer-sdk/web/package.json')).resolve('loro-crdt/package.json'))

/** The build of Loro that a page starts itself, for the page and the package alike. */
const oneLoro = {
  name: 'one loro',
  setup: ({ onResolve }) => onResolve({ filter: /^loro-crdt(\/web)?$/ }, () => ({ path: path.join(loro, 'web/index.js') }))
}

/** Builds into `out`: `ours.html` and `y-webrtc.html`. */
export async function buildPages (out) {
  await mkdir(out, { recursive: true })
  for (const name of ['ours', 'y-webrtc']) {
    await build({
      entryPoints: [path.join(here, `${name}.js`)], outfile: path.join(out, `${name}.js`), bundle: true, minify: true,
      format: 'iife', platform: 'browser', target: 'es2022', plugins: [oneLoro], logLevel: 'error',
      // simple-peer expects Node's name for the global object; nobody asks Loro's own question where it lies.
      define: { global: 'globalThis', 'import.meta.url': '""' }
    })
    await writeFile(path.join(out, `${name}.html`), `<!doctype html><meta charset="utf-8"><title>${name}</title><script src="${name}.js"></script>\n`)
  }
  await copyFile(path.join(loro, 'web/loro_wasm_bg.wasm'), path.join(out, 'loro_wasm_bg.wasm'))
  await pack(out)
}

// Builds the page into a folder of plain files.
import { createHash } from 'node:crypto'
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import path from 'node:path'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import { build } from 'esbuild'

const here = import.meta.dirname
const loro = path.dirname(createRequire(import.meta.url).resolve('loro-crdt/package.json'))

/** The build of Loro that waits for its bytes, for the page and the package alike. */
const oneLoro = {
  name: 'one loro',
  setup: ({ onResolve }) => onResolve({ filter: /^loro-crdt(\/web)?$/ }, () => ({ path: path.join(loro, 'web/index.js') }))
}

/** Builds into `out`, and says where that is. */
export async function buildReview (out = path.join(here, 'dist')) {
  await rm(out, { recursive: true, force: true })
  await mkdir(out, { recursive: true })
  const common = { bundle: true, format: 'esm', target: 'es2022', minify: true, logLevel: 'warning' }
  const { outputFiles } = await build({
    ...common, entryPoints: [path.join(here, 'page.ts')], outdir: out, splitting: true, write: false, plugins: [oneLoro]
  })
  const files = ['./', 'style.css', 'loro_wasm_bg.wasm']
  for (const { path: file, contents } of outputFiles) {
    await writeFile(file, contents)
    files.push(path.basename(file))
  }
  await copyFile(path.join(loro, 'web/loro_wasm_bg.wasm'), path.join(out, 'loro_wasm_bg.wasm'))
  for (const name of ['index.html', 'style.css']) await copyFile(path.join(here, name), path.join(out, name))
  const hash = createHash('sha256')
  for (const name of ['index.html', ...files.slice(1)]) hash.update(await readFile(path.join(out, name)))
  await build({
    ...common,
    entryPoints: [path.join(here, 'worker.js')],
    outfile: path.join(out, 'worker.js'),
    define: { FILES: JSON.stringify(files), VERSION: JSON.stringify(`review ${hash.digest('hex').slice(0, 12)}`) }
  })
  await pack(out)
  return out
}

/** Puts a compressed copy beside every file of a folder, for the server to send. */
export async function pack (folder) {
  const names = await readdir(folder)
  await Promise.all(names.map(async name => {
    const file = path.join(folder, name)
    await writeFile(`${file}.gz`, await promisify(gzip)(await readFile(file)))
  }))
}

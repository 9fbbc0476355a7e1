// Serves the review page: `node serve.mjs [--port 8080] [--host 127.0.0.1] [--root FOLDER]`. Without a folder it is built first.
// What the build has compressed goes out like that where the browser takes it.
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import http from 'node:http'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { buildReview } from './build.mjs'

const types = { '.html': 'text/html; charset=utf-8', '.css': 'text/css; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.wasm': 'application/wasm' }

/** Serves the built page of `root`. */
export async function serveReview (root, { port = 0, host = '127.0.0.1' } = {}) {
  const server = http.createServer(async (request, response) => {
    // One flat folder: whatever is asked for, only a name in it is looked at.
    const name = path.basename(new URL(request.url ?? '/', 'http://page').pathname) || 'index.html'
    const headers = { 'Content-Type': types[path.extname(name)] ?? 'application/octet-stream', 'Cache-Control': 'no-cache', Vary: 'Accept-Encoding' }
    const takesGzip = /\bgzip\b/.test(String(request.headers['accept-encoding']))
    try {
      const packed = takesGzip ? await readFile(path.join(root, `${name}.gz`)).catch(() => undefined) : undefined
      const contents = packed ?? await readFile(path.join(root, name))
      if (packed !== undefined) headers['Content-Encoding'] = 'gzip'
      response.writeHead(200, headers).end(contents)
    } catch {
      response.writeHead(404, { 'Content-Type': 'text/plain' }).end('not found\n')
    }
  })
  server.listen(port, host)
  await once(server, 'listening')
  return { server, url: `http://${host}:${server.address().port}` }
}

if (process.argv[1] === import.meta.filename) {
  const { values } = parseArgs({ options: { port: { type: 'string', default: '8080' }, host: { type: 'string', default: '127.0.0.1' }, root: { type: 'string' } } })
  const { url } = await serveReview(values.root ?? await buildReview(), { port: Number(values.port), host: values.host })
  console.log(`the review page is at ${url}`)
}

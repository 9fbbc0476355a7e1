// The whole story on one machine: a signaling server, an agent with its MCP server, and the review page in two windows.
//
//   npm run story                 builds what it needs, opens the browser, and tells what happens until Ctrl-C
//   npm run story -- --no-open    only prints the two links
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { buildReview } from '../review/build.mjs'
import { serveReview } from '../review/serve.mjs'
import { Agent, plan } from './agent.mjs'

const { values } = parseArgs({ options: { 'no-open': { type: 'boolean', default: false } } })
const root = path.join(import.meta.dirname, '../../../..')
const folder = mkdtempSync(path.join(os.tmpdir(), 'story-'))
const say = line => console.log(line)

say('Building the server and the agent’s MCP server; the first time takes some minutes …')
execFileSync('cargo', ['build', '--locked', '-p', 'signaling-server', '-p', 'peer-sdk', '--bin', 'signaling-server', '--example', 'mcp_server'], { cwd: root, stdio: 'inherit' })
const metadata = JSON.parse(execFileSync('cargo', ['metadata', '--no-deps', '--format-version', '1'], { cwd: root, maxBuffer: 1 << 26 }))
const built = path.join(metadata.target_directory, 'debug')

const server = spawn(path.join(built, 'signaling-server'), ['--listen', '127.0.0.1:0', '--metrics-listen', '127.0.0.1:0'], { stdio: ['ignore', 'pipe', 'ignore'] })
const signal = await new Promise((resolve, reject) => {
  createInterface({ input: server.stdout }).on('line', line => {
    const listening = /listening on (ws:\/\/[^\s]+)/.exec(line)
    if (listening) resolve(listening[1].replace(/\/$/, ''))
  })
  server.once('exit', code => reject(new Error(`the signaling server ended with ${code}`)))
})
const page = await serveReview(await buildReview(path.join(folder, 'page')))
const agent = await Agent.start(path.join(built, 'examples/mcp_server'), ['--dir', path.join(folder, 'plans'), '--page', `${page.url}/`, '--signal', signal])
process.once('SIGINT', leave)
process.once('SIGTERM', leave)

const { plan_id: id, link } = await agent.call('create_plan', plan)
const shared = new URL(link)
const remote = new URLSearchParams(shared.hash.slice(1))
remote.delete('hub')
shared.hash = remote.toString()
say(`
The signaling server listens at ${signal}. The agent has written a plan:

  beside the agent, over its hub     ${link}
  as from elsewhere, by WebRTC       ${shared}

Annotate in one window and see it in the other. Ctrl-C ends everything.
`)
if (!values['no-open']) for (const url of [link, String(shared)]) open(url)

for (let revision; ;) {
  const before = revision
  const { changed, revision: now, annotations } = await agent.call('wait_for_change', { plan_id: id, since: before, timeout_seconds: 30 }, 60_000)
  revision = now
  if (!changed) continue
  const last = annotations.at(-1)
  const { reviewers } = await agent.call('see_reviewers', { plan_id: id })
  if (last) say(`the agent sees ${annotations.length} annotation${annotations.length === 1 ? '' : 's'}, the last by ${last.author}: ${JSON.stringify(last.text)} (${reviewers.length} online)`)
}

function open (url) {
  const [command, ...before] = { darwin: ['open'], win32: ['cmd', '/c', 'start', ''] }[process.platform] ?? ['xdg-open']
  const opener = spawn(command, [...before, url], { stdio: 'ignore', detached: true })
  opener.on('error', () => say(`No browser could be opened here; open this one yourself: ${url}`))
  opener.unref()
}

async function leave () {
  await agent.stop()
  server.kill()
  await once(server, 'exit')
  rmSync(folder, { recursive: true, force: true })
  process.exit(0)
}

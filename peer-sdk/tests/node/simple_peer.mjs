// A simple-peer over @roamhq/wrtc, told what to do line by line, in JSON. Usage: simple_peer.mjs initiator|answerer [LABEL]
import { createInterface } from 'node:readline'
import { createRequire } from 'node:module'
import path from 'node:path'

const require = createRequire(path.join(import.meta.dirname, '../../../e2e/package.json'))
const Peer = require('simple-peer')
const wrtc = require('@roamhq/wrtc')

const [role, channelName] = process.argv.slice(2)
const say = line => process.stdout.write(JSON.stringify(line) + '\n')
const peer = new Peer({ initiator: role === 'initiator', channelName, wrtc })
let echoes = false

peer.on('signal', signal => say({ signal }))
peer.on('connect', () => say({ event: 'connect', label: peer._channel.label }))
peer.on('data', data => {
  if (echoes) peer.send(data)
  say({ event: 'data', size: data.length, same: data.every(byte => byte === data[0]), first: data[0] })
})
peer.on('close', () => say({ event: 'close' }))
peer.on('error', error => say({ event: 'error', code: error.code, message: error.message }))

const deeds = {
  signal: ({ signal }) => peer.signal(signal),
  send: ({ size, fill }) => peer.send(new Uint8Array(size).fill(fill)),
  text: ({ text }) => peer.send(text),
  echo: () => { echoes = true },
  negotiate: () => peer.negotiate(),
  restart: () => {
    peer.offerOptions = { iceRestart: true }
    peer._createOffer()
  },
  destroy: () => peer.destroy(),
  // Gone without a word.
  vanish: () => process.kill(process.pid, 'SIGKILL')
}

createInterface({ input: process.stdin })
  .on('line', line => {
    const deed = JSON.parse(line)
    deeds[deed.do](deed)
  })
  .on('close', () => process.exit())

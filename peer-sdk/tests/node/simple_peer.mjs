// A simple-peer over @roamhq/wrtc, told what to do line by line, in JSON. Usage: simple_peer.mjs initiator|answerer [LABEL]
import { createInterface } from 'node:readline'
import { createRequire } from 'node:module'
import path from 'node:path'
import { act } from './deeds.mjs'

const require = createRequire(path.join(import.meta.dirname, '../../../e2e/package.json'))
const Peer = require('simple-peer')
const wrtc = require('@roamhq/wrtc')

const [role, channelName] = process.argv.slice(2)
const say = line => process.stdout.write(JSON.stringify(line) + '\n')
const deeds = {
  ...act(Peer, { initiator: role === 'initiator', channelName, wrtc }, say),
  // Gone without a word.
  vanish: () => process.kill(process.pid, 'SIGKILL')
}
say({ event: 'ready' })

createInterface({ input: process.stdin })
  .on('line', line => {
    const deed = JSON.parse(line)
    deeds[deed.do](deed)
  })
  .on('close', () => process.exit())

// An unmodified y-webrtc in one room. Usage: y_webrtc.mjs URL ROOM [PASSWORD]
import { createRequire } from 'node:module'
import path from 'node:path'

const require = createRequire(path.join(import.meta.dirname, '../../../e2e/package.json'))
globalThis.WebSocket = require('ws')
const wrtc = require('@roamhq/wrtc')
const Y = require('yjs')
const { WebrtcProvider } = require('y-webrtc')

const [url, room, password] = process.argv.slice(2)
const say = line => process.stdout.write(JSON.stringify(line) + '\n')
const provider = new WebrtcProvider(room, new Y.Doc(), { signaling: [url], password, peerOpts: { wrtc } })
provider.on('peers', ({ webrtcPeers }) => say({ event: 'peers', peers: webrtcPeers }))
provider.key.then(() => say({ event: 'started', id: provider.room.peerId }))
process.stdin.on('end', () => process.exit()).resume()

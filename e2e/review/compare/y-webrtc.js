// y-webrtc, in as little of a page as there can be. What `window.lab` offers is the same as in ours.js.
import { asked, connections, mark, marks, sees, seen, sent } from './marks.js'
import { WebrtcProvider } from 'y-webrtc'
import * as Y from 'yjs'

const doc = new Y.Doc()
mark('library')
const entries = doc.getMap('entries')
const long = doc.getText('long')
const provider = new WebrtcProvider(asked.room, doc, { signaling: [asked.signal], peerOpts: { config: { iceServers: JSON.parse(asked.ice) } } })
provider.awareness.setLocalState({ name: asked.name })
provider.on('status', ({ connected }) => { if (connected) mark('signaling') })
doc.on('update', (_update, _origin, _doc, { local }) => { if (!local) mark('firstSync') })
entries.observe(({ keysChanged }, { local }) => { if (!local) keysChanged.forEach(sees) })

const links = () => provider.room === null ? [] : [...provider.room.webrtcConns.values()].filter(({ connected }) => connected)
window.lab = {
  marks, seen, sent, connections, provider,
  ready: () => provider.signalingConns.some(({ connected }) => connected),
  write: name => { entries.set(name, 1); return Date.now() },
  has: name => entries.get(name) === 1,
  enlarge: bytes => {
    for (let left = bytes; left > 0; left -= 1_000_000) long.insert(long.length, noise(Math.min(left, 1_000_000)))
  },
  size: () => long.length,
  online: () => provider.awareness.getStates().size,
  channels: () => links().length
}
const noise = length => Array.from({ length }, () => String.fromCharCode(97 + Math.random() * 26)).join('')

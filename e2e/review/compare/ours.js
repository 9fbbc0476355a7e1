// This SDK, in as little of a page as there can be. What `window.lab` offers is the same as in y-webrtc.js.
import { asked, connections, mark, marks, sees, seen, sent } from './marks.js'
import * as loro from 'loro-crdt/web'
import { Peer, webrtc } from '../../../peer-sdk/web/src/index.ts'

// As the review page does it.
async function loadLoro () {
  const bytes = await (await fetch('loro_wasm_bg.wasm')).arrayBuffer()
  mark('fetched')
  const module = await WebAssembly.compile(bytes)
  mark('compiled')
  await loro.default({ module_or_path: module })
  mark('library')
}

let entries, long
const peer = new Peer({
  room: asked.room,
  doc: async () => {
    await loadLoro()
    const doc = new loro.LoroDoc()
    entries = doc.getMap('entries')
    long = doc.getText('long')
    doc.subscribe(({ by }) => { if (by === 'import') mark('firstSync') })
    entries.subscribe(({ by, events }) => {
      if (by === 'import') for (const { diff } of events) for (const name of Object.keys(diff.updated ?? {})) sees(name)
    })
    return doc
  },
  adapters: [webrtc({ signaling: asked.signal, iceServers: JSON.parse(asked.ice) })],
  presence: { name: asked.name }
})
peer.subscribe(() => {
  if (peer.status.signaling.some(({ state }) => state === 'connected')) mark('signaling')
  if (peer.status.links.length > 0) mark('channel')
})

window.lab = {
  marks, seen, sent, connections, peer,
  ready: () => peer.status.loaded && peer.status.signaling.some(({ state }) => state === 'connected'),
  write: name => { entries.set(name, 1); peer.doc.commit(); return Date.now() },
  has: name => entries?.get(name) === 1,
  enlarge: bytes => {
    for (let left = bytes; left > 0; left -= 1_000_000) long.push(noise(Math.min(left, 1_000_000)))
    peer.doc.commit()
  },
  size: () => long?.length ?? 0,
  online: () => peer.presence.online,
  channels: () => peer.status.links.filter(({ joined }) => joined).length
}
const noise = length => Array.from({ length }, () => String.fromCharCode(97 + Math.random() * 26)).join('')

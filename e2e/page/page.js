// One participant, as an application would write it. The query says who and where: room, server, name, password.
import * as Y from 'yjs'
import { WebrtcProvider } from 'y-webrtc'

const query = new URLSearchParams(window.location.search)
const doc = new Y.Doc()
const provider = new WebrtcProvider(query.get('room'), doc, {
  signaling: [query.get('server')],
  password: query.get('password'),
  // No STUN: everything here is on one machine.
  peerOpts: { config: { iceServers: [] } }
})
provider.awareness.setLocalState({ name: query.get('name'), cursor: 0 })

let disconnects = 0
for (const connection of provider.signalingConns) {
  connection.on('disconnect', () => { disconnects++ })
}

/** What the tests see and do. */
window.participant = {
  write: text => doc.getText('plan').insert(0, text),
  text: () => doc.getText('plan').toString(),
  moveCursor: cursor => provider.awareness.setLocalStateField('cursor', cursor),
  hide: () => provider.awareness.setLocalState(null),
  /** Everybody's cursor by name, one's own too. */
  cursors: () => Object.fromEntries([...provider.awareness.getStates().values()].map(s => [s.name, s.cursor])),
  signaling: () => provider.signalingConns.every(connection => connection.connected),
  disconnects: () => disconnects,
  sinceLastMessage: () => Math.min(...provider.signalingConns.map(c => Date.now() - c.lastMessageReceived)),
  links,
  async dataChannelMessages () {
    const received = await Promise.all(links().map(async link => {
      const stats = [...(await link.peer._pc.getStats()).values()]
      return stats.filter(s => s.type === 'data-channel').reduce((sum, s) => sum + s.messagesReceived, 0)
    }))
    return received.reduce((sum, n) => sum + n, 0)
  },
  tabsHeard: () => provider.room.bcConns.size
}

function links () {
  return [...(provider.room?.webrtcConns.values() ?? [])].filter(link => link.connected)
}

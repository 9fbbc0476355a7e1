// A client that announces itself with a clock that is wrong, and stays.
//
// Usage: other-clock.mjs URL ROOM MILLISECONDS. Prints a line when it has announced itself.
import { EphemeralStore } from 'loro-crdt'
import { LoroEphemeralAdaptor } from 'loro-adaptors/loro'
import { LoroWebsocketClient } from 'loro-websocket'
import WebSocket from 'ws'

const [url, roomId, milliseconds] = process.argv.slice(2)
const now = Date.now
Date.now = () => now() + Number(milliseconds)
globalThis.WebSocket = WebSocket

const store = new EphemeralStore()
await new LoroWebsocketClient({ url }).join({ roomId, crdtAdaptor: new LoroEphemeralAdaptor(store) })
store.set('skewed', { line: 1 })
console.log('announced')

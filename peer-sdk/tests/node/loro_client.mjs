// The published Loro client in a room, told what to do line by line, in JSON.
// Usage: loro_client.mjs URL ROOM [KEY], where KEY is 64 hexadecimal digits, and makes it an end-to-end encrypted room.
import { createInterface } from 'node:readline'
import { createRequire } from 'node:module'
import path from 'node:path'

const require = createRequire(path.join(import.meta.dirname, '../../../e2e/package.json'))
const { EloAdaptor, LoroAdaptor, LoroEphemeralAdaptor } = require('loro-adaptors/loro')
const { EphemeralStore, LoroDoc } = require('loro-crdt')
const { LoroWebsocketClient } = require('loro-websocket')
globalThis.WebSocket ??= require('ws')

const [url, roomId, hex] = process.argv.slice(2)
const say = line => process.stdout.write(JSON.stringify(line) + '\n')
const doc = new LoroDoc()
const notes = () => doc.getList('notes').toJSON()
doc.subscribe(() => say({ notes: notes() }))

const config = {
  getPrivateKey: async () => ({ keyId: 'first', key: Uint8Array.from(Buffer.from(hex, 'hex')) }),
  onDecryptError: error => say({ unreadable: error.message })
}
const client = new LoroWebsocketClient({ url })
await client.waitConnected()
const crdtAdaptor = hex ? new EloAdaptor(doc, config) : new LoroAdaptor(doc)
await client.join({ roomId, crdtAdaptor })

let store
const deeds = {
  note: ({ note }) => {
    doc.getList('notes').push(note)
    doc.commit()
  },
  blob: ({ bytes }) => {
    doc.getMap('files').set('blob', Uint8Array.from({ length: bytes }, (_, at) => at * 2654435761 >>> 24))
    doc.commit()
  },
  show: async ({ key, value }) => {
    store = new EphemeralStore()
    store.subscribe(() => say({ shown: Object.keys(store.getAllStates()).length }))
    await client.join({ roomId, crdtAdaptor: new LoroEphemeralAdaptor(store) })
    store.set(key, value)
  },
  leave: () => {
    client.close()
    say({ left: true })
  },
  return: () => client.connect()
}

say({ joined: true })
say({ notes: notes() })
createInterface({ input: process.stdin })
  .on('line', line => {
    const deed = JSON.parse(line)
    deeds[deed.do](deed)
  })
  .on('close', () => process.exit())

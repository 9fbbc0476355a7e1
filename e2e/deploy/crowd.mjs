// Many clients as they are in the field: y-webrtc's own connection, which comes back by itself when it is closed.
import { WebsocketClient } from 'lib0/websocket'
import WebSocket from 'ws'
import { until } from './processes.mjs'

// lib0 expects the browser's global.
globalThis.WebSocket ??= WebSocket

export class Crowd {
  /** `size` clients in rooms of `perRoom`, each of which says something every `everyMs`. */
  constructor (url, { size, perRoom, everyMs }) {
    this.size = size
    /** When somebody was connected, in milliseconds of the process. */
    this.connects = []
    /** For each close, how long it took until that client was connected again. */
    this.gaps = []
    this.heard = 0
    this.clients = Array.from({ length: size }, (_, index) => this.join(url, `room-${Math.floor(index / perRoom)}`))
    this.chatter = setInterval(() => this.speak(), everyMs)
  }

  join (url, room) {
    const client = new WebsocketClient(url)
    let closedAt
    client.room = room
    client.on('connect', () => {
      const now = performance.now()
      this.connects.push(now)
      if (closedAt !== undefined) this.gaps.push(now - closedAt)
      client.send({ type: 'subscribe', topics: [room] })
    })
    client.on('disconnect', () => { closedAt = performance.now() })
    client.on('message', () => { this.heard++ })
    return client
  }

  speak () {
    for (const client of this.clients.filter(client => client.connected)) client.send({ type: 'publish', topic: client.room, data: 'line 3 is wrong' })
  }

  get connected () { return this.clients.filter(client => client.connected).length }

  allConnected (ms) { return until(`${this.size} connections, ${this.connected} are there`, ms, () => this.connected === this.size) }

  leave () {
    clearInterval(this.chatter)
    for (const client of this.clients) client.destroy()
  }
}

/** The largest part of `times` that lies within any `ms` milliseconds. */
export function densest (times, ms) {
  const within = times.map(start => times.filter(time => time >= start && time < start + ms).length)
  return Math.max(...within) / times.length
}

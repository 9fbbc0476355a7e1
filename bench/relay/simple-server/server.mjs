// The SimpleServer of npm loro-websocket as it comes, in memory, on the port in PORT.
import { SimpleServer } from 'loro-websocket/server'

const port = Number(process.env.PORT)
await new SimpleServer({ port, host: '127.0.0.1' }).start()
console.log(`listening on ws://127.0.0.1:${port}`)

// What the tests have a simple-peer do, wherever it runs.

/** Makes a peer that tells `say` what happens to it. What comes back is what it can be told to do. */
export function act (Peer, options, say) {
  const peer = new Peer(options)
  let echoes = false
  peer.on('signal', signal => say({ signal }))
  peer.on('connect', () => say({ event: 'connect', label: peer._channel.label }))
  peer.on('data', data => {
    if (echoes) peer.send(data)
    say({ event: 'data', size: data.length, same: data.every(byte => byte === data[0]), first: data[0] })
  })
  peer.on('close', () => say({ event: 'close' }))
  peer.on('error', error => say({ event: 'error', code: error.code, message: error.message }))
  return {
    // What is late is not for a peer that is closed, as y-webrtc has it.
    signal: ({ signal }) => { if (!peer.destroyed) peer.signal(signal) },
    send: ({ size, fill }) => peer.send(new Uint8Array(size).fill(fill)),
    text: ({ text }) => peer.send(text),
    echo: () => { echoes = true },
    negotiate: () => peer.negotiate(),
    restart: () => {
      peer.offerOptions = { iceRestart: true }
      peer._createOffer()
    },
    destroy: () => peer.destroy()
  }
}

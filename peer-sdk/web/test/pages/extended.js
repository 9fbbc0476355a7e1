// A page of an application that uses loro-extended: one repository, one document, and this SDK's adapter between browsers.
import startLoro from 'loro-crdt/web'

await startLoro({ module_or_path: 'loro_wasm_bg.wasm' })
const { Repo, Shape } = await import('@loro-extended/repo').then(async repo => ({ ...repo, ...await import('@loro-extended/change') }))
const { WebRTCNetworkAdapter } = await import('../../src/loro-extended')
const query = new URLSearchParams(location.search)
const adapter = new WebRTCNetworkAdapter({ signaling: [query.get('signal')], iceServers: [], room: query.get('room') })
const repo = new Repo({ identity: { name: query.get('name'), type: 'user', peerId: query.get('peer') }, adapters: [adapter] })
const handle = repo.get('plan', Shape.doc({ plan: Shape.text() }))

window.extended = {
  adapter,
  text: () => handle.loroDoc.getText('plan').toString(),
  write: text => {
    const doc = handle.loroDoc
    doc.getText('plan').insert(0, text)
    doc.commit()
  },
  reset: () => repo.reset()
}

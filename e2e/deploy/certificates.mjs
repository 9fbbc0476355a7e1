// A certificate authority that lives for one test, and what it signs.
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'

/** Puts `ca.pem`, and `cert.pem`, `key.pem` and `both.pem` for `name`, into `folder`; returns what a client has to trust. */
export function issue (folder, name) {
  const at = file => path.join(folder, file)
  const openssl = (...parameters) => execFileSync('openssl', parameters, { stdio: 'ignore', timeout: 20_000 })
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  openssl('req', '-x509', ...newKey, '-days', '2', '-subj', '/CN=authority', '-keyout', at('ca.key'), '-out', at('ca.pem'))
  openssl('req', ...newKey, '-subj', `/CN=${name}`, '-keyout', at('key.pem'), '-out', at('request.pem'))
  writeFileSync(at('names'), `subjectAltName=DNS:${name}\n`)
  openssl('x509', '-req', '-in', at('request.pem'), '-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial',
    '-days', '2', '-extfile', at('names'), '-out', at('cert.pem'))
  writeFileSync(at('both.pem'), readFileSync(at('cert.pem'), 'utf8') + readFileSync(at('key.pem'), 'utf8'))
  return readFileSync(at('ca.pem'), 'utf8')
}

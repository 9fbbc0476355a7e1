// The built server against the clients that npm has for the Loro Protocol, unmodified.
import { after, before, describe } from 'node:test'
import { access } from './relay/access.mjs'
import { documents } from './relay/documents.mjs'
import { others } from './relay/others.mjs'
import { relay } from './relay/peers.mjs'
import { presence } from './relay/presence.mjs'
import { restarts } from './relay/restart.mjs'
import { sealed } from './relay/sealed.mjs'

describe('the published Loro clients', { concurrency: true, timeout: 120_000 }, () => {
  let server
  before(async () => { server = await relay() })
  after(() => server.kill())
  const url = () => server.url

  describe('documents', { concurrency: true }, () => documents(url))
  describe('presence', { concurrency: true }, () => presence(url))
  describe('encrypted documents', { concurrency: true }, () => sealed(url))
  describe('coming back', { concurrency: true }, restarts)
  describe('access', { concurrency: true }, access)
  describe('what else is on the socket', { concurrency: true }, () => others(url))
})

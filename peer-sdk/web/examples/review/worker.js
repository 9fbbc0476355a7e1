// Keeps the page itself, so that it opens without a network. What is in the plan is none of its business.
/* global FILES, VERSION, self, caches */

/** How long the network may take before what is kept is shown, in milliseconds. */
const PATIENCE = 1500

self.addEventListener('install', event => {
  event.waitUntil(caches.open(VERSION).then(async cache => { await cache.addAll(FILES) }).then(async () => { await self.skipWaiting() }))
})

self.addEventListener('activate', event => {
  const old = caches.keys().then(async names => await Promise.all(names.filter(name => name !== VERSION).map(async name => await caches.delete(name))))
  event.waitUntil(old.then(async () => { await self.clients.claim() }))
})

self.addEventListener('fetch', event => {
  const { request } = event
  if (request.method !== 'GET' || new URL(request.url).origin !== self.location.origin) return
  event.respondWith(answer(request))
})

async function answer (request) {
  const cached = await caches.match(request, { ignoreSearch: true })
  try {
    return await fetch(request, cached === undefined ? {} : { signal: AbortSignal.timeout(PATIENCE) })
  } catch {
    return cached ?? Response.error()
  }
}

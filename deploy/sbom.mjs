#!/usr/bin/env node
// What a binary of this workspace is made of, as a CycloneDX 1.5 document on the standard output.
//
//   deploy/sbom [PACKAGE] [TARGET]          signaling-server, and this machine's target, unless said
//
// Only what is linked in counts: no build or test dependencies, and nothing that is for another platform.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'

const root = path.join(import.meta.dirname, '..')
const [name = 'signaling-server', target = hostTarget()] = process.argv.slice(2)
const cargo = (...parameters) => execFileSync('cargo', parameters, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 })
const metadata = JSON.parse(cargo('metadata', '--format-version', '1', '--locked', '--filter-platform', target))
const packages = new Map(metadata.packages.map(one => [one.id, one]))
const nodes = new Map(metadata.resolve.nodes.map(node => [node.id, node]))
const checksums = new Map([...readFileSync(path.join(root, 'Cargo.lock'), 'utf8')
  .matchAll(/name = "(.+)"\nversion = "(.+)"\nsource = ".+"\nchecksum = "(.+)"/g)].map(found => [`${found[1]}@${found[2]}`, found[3]]))

const main = metadata.packages.find(one => one.name === name && one.source === null)
if (!main) {
  console.error(`sbom: no package ${name} in this workspace`)
  process.exit(2)
}
// cargo metadata turns on what any member of the workspace asks for; cargo tree, what this one does.
const tree = cargo('tree', '--locked', '--package', main.name, '--target', target, '--edges', 'normal,no-proc-macro', '--prefix', 'none', '--format', '{p}')
const inTree = new Set([...tree.matchAll(/^(\S+) v(\S+)/gm)].map(found => `${found[1]}@${found[2]}`))
const linked = reached(main.id)
const document = {
  bomFormat: 'CycloneDX',
  specVersion: '1.5',
  version: 1,
  metadata: { component: { ...described(main), type: 'application' } },
  components: [...linked].filter(id => id !== main.id).map(id => described(packages.get(id))),
  dependencies: [...linked].map(id => ({ ref: purl(packages.get(id)), dependsOn: [...new Set(linkedBy(id).map(used => purl(packages.get(used))))] }))
}
console.log(JSON.stringify(document, null, 2))

function hostTarget () {
  return /^host: (.+)$/m.exec(execFileSync('rustc', ['-vV'], { encoding: 'utf8' }))[1]
}

/** What a package links. */
function linkedBy (id) {
  return nodes.get(id).deps.map(used => used.pkg).filter(used => inTree.has(`${packages.get(used).name}@${packages.get(used).version}`))
}

function reached (from) {
  const found = new Set([from])
  for (const id of found) linkedBy(id).forEach(used => found.add(used))
  return found
}

function purl (one) { return `pkg:cargo/${one.name}@${one.version}` }

function described (one) {
  const checksum = checksums.get(`${one.name}@${one.version}`)
  return {
    type: 'library',
    'bom-ref': purl(one),
    name: one.name,
    version: one.version,
    ...(one.description && { description: one.description.trim() }),
    ...(one.license && { licenses: [{ expression: one.license.replaceAll('/', ' OR ').replaceAll(/ +/g, ' ') }] }),
    ...(checksum && { hashes: [{ alg: 'SHA-256', content: checksum }] }),
    purl: purl(one)
  }
}

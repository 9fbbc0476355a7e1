// Every invariant refuses what breaks it, and says where; and lets pass what only looks like it.
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { it } from 'node:test'
import { rules } from './invariants.mjs'

const shown = new Set()
const readme = (...commands) => ({ 'README.md': commands.map(command => `Text.\n\n\`\`\`sh\n${command}\n\`\`\`\n`).join('\n') })
const lines = count => 'fn f() {}\n'.repeat(count)
// Put together here, so that this file does not break the rule itself.

const later = 'TO' + 'DO'

refuses('a core touches no world', [
  { 'wire/src/lib.rs': 'async fn f() {}' },
  { 'wire/src/deep/er.rs': '\n\nuse std::time::SystemTime;' },
  { 'signaling-server/src/room.rs': 'let now = Instant::now();' },
  { 'signaling-server/src/room/topic.rs': 'use tokio::sync::mpsc;' },
  { 'signaling-server/src/room/topic.rs': 'use axum::Router;' },
  { 'peer-sdk/src/engine.rs': 'std::thread::spawn(f);' },
  { 'peer-sdk/src/engine/link.rs': 'let x: u8 = rand::random();' },
  { 'wire/src/lib.rs': "fn f<'a>(c: char) -> bool { c == '\"' }\nlet now = Instant::now();" }
])
allows('a core touches no world', [
  { 'wire/src/lib.rs': '//! No async, no tokio, no Instant::now.\n/* a thread */ const S: &str = "tokio async";\nconst R: &str = r#"a "thread" "#;' },
  { 'wire/src/lib.rs': 'fn f(now: Instant) {}\n#[cfg(test)]\nmod tests {\n fn g() { let now = Instant::now(); }\n}' },
  { 'signaling-server/src/rooms.rs': 'use tokio::sync::mpsc;', 'wire/tests/x.rs': 'use std::thread;' }
])

refuses('every queue has a bound', [
  { 'signaling-server/src/hub.rs': 'let (tx, rx) = mpsc::unbounded_channel();' },
  { 'loadtest/src/main.rs': 'let (tx, rx) = flume::unbounded();' },
  { 'loadtest/src/main.rs': 'let (tx, rx) = std::sync::mpsc::channel();' },
  { 'loadtest/src/main.rs': 'let (tx, rx) = mpsc::channel::<Vec<u8>>( );' },
  { 'loadtest/src/main.rs': 'struct S { rx: UnboundedReceiver<u8> }' },
  { 'loadtest/src/main.rs': '#[cfg(test)]\nmod tests { fn f() { } }\nlet (tx, rx) = flume::unbounded();' }
])
allows('every queue has a bound', [
  { 'signaling-server/src/hub.rs': 'let (tx, rx) = mpsc::channel(8); let (a, b) = oneshot::channel();' },
  { 'signaling-server/tests/x.rs': 'let (tx, rx) = mpsc::unbounded_channel();' }
])

refuses('nothing is left for later', [
  { 'wire/src/lib.rs': `// ${later}: the rest` },
  { 'wire/src/lib.rs': `${later.toLowerCase()}!()` },
  { 'wire/src/lib.rs': '#[' + 'ignore = "slow"]\n#[test]\nfn f() {}' },
  { 'e2e/a.test.mjs': 'it.' + 'only("x", () => {})' },
  { 'e2e/a.test.mjs': 'describe.' + 'only("x", () => {})' },
  { 'test': `# FIX${'ME'} later` }
])
allows('nothing is left for later', [{ 'wire/src/lib.rs': 'let all = relay.only(Permission::Read);', 'notes.md': later }])

refuses('a file is read in one sitting', [{ 'wire/src/lib.rs': lines(451) }, { 'e2e/servers.mjs': lines(451) }])
allows('a file is read in one sitting', [
  { 'wire/src/lib.rs': lines(440) + '#[cfg(test)]\nmod tests {\n' + lines(300) + '}\n' },
  { 'wire/tests/all.rs': lines(900) }
])

refuses('no label comes from a user', [
  { 'signaling-server/src/m.rs': 'self.sent.with_label_values(&[room]).inc();' },
  { 'signaling-server/src/m.rs': 'self.sent.with_label_values(&["x", &format!("{}", who)]).inc();' },
  { 'signaling-server/src/m.rs': 'Opts::new("a", "b").const_label("room", name)' }
])
allows('no label comes from a user', [
  { 'signaling-server/src/m.rs': 'f.with_label_values(&[reason.name(), "x"]); o.const_label("version", env!("CARGO_PKG_VERSION"))' }
])

refuses('no log tells what users wrote', [
  { 'signaling-server/src/m.rs': 'info!(room, "joined");' },
  { 'signaling-server/src/m.rs': 'tracing::warn!(%topic, "full");' },
  { 'signaling-server/src/m.rs': 'info!(\n  "joined {topic}"\n);' },
  { 'signaling-server/src/m.rs': 'debug!("refused {token:?}");' },
  { 'signaling-server/src/m.rs': 'error!(reason = %e, "{}", payload);' }
])
allows('no log tells what users wrote', [
  { 'signaling-server/src/m.rs': 'debug!(topic, "joined"); info!(rooms = 3, "the room is full, token or not"); warn!(token_file = %p, "x");' }
])

refuses('two commands set everything up', [
  readme('cargo run --release -p signaling-server'),
  readme('./test'),
  readme('cargo run --release -p signaling-server', './test', './test'),
  readme('cargo run --release -p signaling-server', './test', 'apt-get install chromium'),
  { 'README.md': 'Run `cargo run --release -p signaling-server` and `./test`.' }
])
allows('two commands set everything up', [
  readme('cargo run --release -p signaling-server', './test'),
  readme('$ cargo run --release -p signaling-server   # listens on 4444', './test'),
  { 'other.md': 'npm ci' }
])

it('every rule is shown to refuse something', () => {
  assert.deepEqual([...shown].sort(), Object.keys(rules).sort())
})

function refuses (rule, trees) {
  shown.add(rule)
  it(`"${rule}" refuses what breaks it`, () => {
    for (const tree of trees) {
      const found = check(rule, tree)
      assert.ok(found.length > 0, JSON.stringify(tree))
    }
  })
}

function allows (rule, trees) {
  it(`"${rule}" allows what keeps it`, () => {
    for (const tree of trees) assert.deepEqual(check(rule, tree), [], JSON.stringify(tree))
  })
}

function check (rule, tree) {
  const root = mkdtempSync(path.join(tmpdir(), 'invariants-'))
  try {
    for (const [name, text] of Object.entries(tree)) {
      mkdirSync(path.dirname(path.join(root, name)), { recursive: true })
      writeFileSync(path.join(root, name), text)
    }
    return [...rules[rule](root)]
  } finally {
    rmSync(root, { recursive: true })
  }
}

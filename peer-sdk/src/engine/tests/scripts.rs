//! Scripts of what an engine hears and what it says to that, which every implementation of the peer runs.
//!
//! Frames stand in them as what they mean: how Loro writes the same changes is its own affair.

use loro::{ExportMode, IdSpan};
use serde_json::{Map, Value, json};
use wire::fragment::{FragmentLimits, Reassembly};
use wire::id::BatchId;
use wire::sync::{Fragment, FragmentHeader, Frame, JoinError, Permission, RoomErrorCode, Status};

use super::*;
use crate::engine::presence::tests as presence_bytes;

/// Our own changes are those of this author.
const US: u64 = 1;
const STATUSES: [Status; 7] = [
    Status::Ok,
    Status::Unknown,
    Status::PermissionDenied,
    Status::InvalidUpdate,
    Status::PayloadTooLarge,
    Status::RateLimited,
    Status::FragmentTimeout,
];

/// An engine, its application, and a disk that answers when the script says so.
struct Actor {
    start: Instant,
    engine: Engine,
    doc: LoroDoc,
    /// What others may write: what changes it has, and the bytes.
    updates: Vec<(Value, Bytes)>,
    ticket: Option<Ticket>,
    /// What we send in parts.
    parts: Reassembly,
}

impl Actor {
    fn new(vectors: &Value, script: &Value) -> Self {
        let start = Instant::now();
        let count = |name: &str| script[name].as_u64().unwrap_or(0) as usize;
        let config = Config {
            room: room().id,
            session: PeerId::from("ana"),
            seed: 1,
            wall: 1_800_000_000_000,
            uplinks: vec![Bytes::new(); count("uplinks")],
            by_author: Vec::new(),
            channels: count("channels"),
        };
        let doc = LoroDoc::new();
        doc.set_peer_id(US).unwrap();
        let updates = vectors["updates"].as_array().unwrap().iter();
        Self {
            start,
            engine: Engine::new(start, config, &[]).unwrap(),
            doc,
            updates: updates
                .map(|one| (one["changes"].clone(), vectors::bytes(&one["bytes"]).into()))
                .collect(),
            ticket: None,
            parts: Reassembly::new(FragmentLimits::default()),
        }
    }

    /// One step: what is said to it, in this order.
    fn step(&mut self, now: Instant, input: &Value) -> Vec<Value> {
        let input = self.input(input);
        self.engine.handle(now, input);
        let mut said = Vec::new();
        while let Some(output) = self.engine.poll() {
            said.extend(self.said(now, output));
        }
        if let Some(update) = self.engine.updates_since(&self.doc.oplog_vv()) {
            self.doc.import(&update).unwrap();
        }
        said
    }

    fn input(&mut self, input: &Value) -> Input {
        let Value::Object(of) = input else {
            return match input.as_str().unwrap() {
                "tick" => Input::Tick,
                "signaling up" => Input::SignalingUp,
                "wake" => Input::Wake,
                "close" => Input::Close,
                other => panic!("there is no input {other}"),
            };
        };
        let text = |name: &str| of[name].as_str().unwrap();
        let data = || Bytes::copy_from_slice(text("data").as_bytes());
        match of.keys().find(|key| !["at", "frame", "data", "kind", "token", "end"].contains(&key.as_str())) {
            Some(key) if key == "edit" => Input::Edited(self.edit(text("edit"))),
            Some(key) if key == "present" => {
                Input::Present(Some(serde_json::from_value(of["present"].clone()).unwrap()))
            }
            Some(key) if key == "up" => {
                let frame = of.get("frame").and_then(Value::as_u64).unwrap_or(256 << 10) as usize;
                Input::Up { link: link(text("up")), frame }
            }
            Some(key) if key == "down" => Input::Down { link: link(text("down")), end: End::Lost },
            Some(key) if key == "stored" => {
                let kept = of["stored"].as_bool().unwrap();
                let result = if kept { Ok(()) } else { Err(StoreFailed) };
                Input::Stored { ticket: self.ticket.take().expect("something is being written"), result }
            }
            Some(key) if key == "announced" => Input::Announced { from: text("announced").into() },
            Some(key) if key == "signalled" => {
                let kind = if text("kind") == "offer" { SignalKind::Offer } else { SignalKind::Answer };
                let token = of.get("token").and_then(Value::as_f64);
                Input::Signalled { from: text("signalled").into(), kind, token, data: data() }
            }
            Some(key) if key == "local" => {
                Input::Local { channel: of["local"].as_u64().unwrap(), data: data() }
            }
            _ => Input::Frame { link: link(text("from")), frame: self.frame(of) },
        }
    }

    fn edit(&self, text: &str) -> Bytes {
        let before = self.doc.oplog_vv();
        self.doc.get_text("t").push_str(text).unwrap();
        self.doc.commit();
        self.doc.export(ExportMode::updates(&before)).unwrap().into()
    }

    /// A frame of somebody else.
    fn frame(&self, said: &Map<String, Value>) -> Bytes {
        let number = |name: &str| said[name].as_u64().unwrap();
        let batch = || BatchId::from(number("batch"));
        let part = |index: u64| {
            let update = self.update(&said["of"]);
            let size = update.len().div_ceil(number("parts") as usize);
            update.slice(size * index as usize..update.len().min(size * (index as usize + 1)))
        };
        let message = if let Some(version) = said.get("join") {
            Message::JoinRequest { auth: Bytes::new(), version: encoded(version) }
        } else if let Some(version) = said.get("joined") {
            let permission =
                if said.contains_key("reads only") { Permission::Read } else { Permission::Write };
            let twice = said.get("twice").map(came_twice);
            Message::JoinOk { permission, version: encoded(version), extra: twice.unwrap_or_default() }
        } else if let Some(update) = said.get("update") {
            return sync::update(&room(), batch(), &[self.update(update)]).unwrap();
        } else if said.contains_key("header") {
            let len = self.update(&said["header"]).len() as u64;
            Message::FragmentHeader(FragmentHeader { batch: batch(), fragments: number("parts"), len })
        } else if said.contains_key("part") {
            Message::Fragment(Fragment { batch: batch(), index: number("part"), bytes: part(number("part")) })
        } else if let Some(status) = said.get("status") {
            let status = STATUSES.into_iter().find(|known| spoken(known) == *status).unwrap();
            return sync::ack(&room(), BatchId::from(number("ack")), status);
        } else if said.contains_key("refused") {
            Message::JoinError { error: JoinError::AuthFailed, message: "no".into() }
        } else if said.contains_key("evicted") {
            Message::RoomError { code: RoomErrorCode::Evicted, message: "out".into() }
        } else if let Some(bytes) = said.get("bytes") {
            return vectors::bytes(bytes).into();
        } else {
            return presence_frame(&said["presence"]);
        };
        message.encode(&room()).unwrap()
    }

    fn update(&self, changes: &Value) -> Bytes {
        let known = self.updates.iter().find(|(known, _)| known == changes);
        known.unwrap_or_else(|| panic!("there is no update of {changes}")).1.clone()
    }

    fn said(&mut self, now: Instant, output: Output) -> Option<Value> {
        let text = |data: &Bytes| String::from_utf8(data.to_vec()).unwrap();
        Some(match output {
            Output::Dial { uplink } => json!({ "dial": uplink }),
            Output::Send { link, frame } => {
                let mut said = self.read(now, &frame)?;
                said["to"] = link.to_string().into();
                said
            }
            Output::Cut { link, reason } => json!({ "cut": link.to_string(), "reason": spoken(&reason) }),
            Output::Append { ticket, update } => {
                self.ticket = Some(ticket);
                json!({ "append": changes(&update) })
            }
            Output::Announce => json!("announce"),
            Output::Signal { to, data, .. } => json!({ "signal": to.to_string_lossy(), "data": text(&data) }),
            Output::Connect { channel, peer, initiator } => {
                json!({ "connect": channel, "with": peer.to_string_lossy(), "offers": initiator })
            }
            Output::Deliver { channel, data } => json!({ "deliver": channel, "data": text(&data) }),
            Output::Event(event) => told(event),
            // How an application gets what is new differs.
            Output::Changed => return None,
            Output::Compact { .. } | Output::Restore => panic!("no script does that"),
        })
    }

    /// What a frame of ours means; `None` while parts of it are to come.
    fn read(&mut self, now: Instant, frame: &Bytes) -> Option<Value> {
        let Frame { room: of, message } = Frame::decode(frame).unwrap();
        if of == presence() {
            return Some(match message {
                Message::JoinRequest { .. } => json!({ "presence": "join" }),
                Message::JoinOk { .. } => json!({ "presence": "joined" }),
                Message::Leave => json!({ "presence": "leave" }),
                Message::Update { updates, .. } => {
                    json!({ "presence": presence_bytes::to_json(&updates.iter().next().unwrap()) })
                }
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(of, room());
        let number = |batch: BatchId| u64::from_be_bytes(batch.0);
        let update = |update: &[u8], batch| json!({ "update": changes(update), "batch": number(batch) });
        Some(match message {
            Message::JoinRequest { version, .. } => json!({ "join": decoded(&version) }),
            Message::JoinOk { version, .. } => json!({ "joined": decoded(&version) }),
            Message::Update { updates, batch } => update(&updates.iter().next().unwrap(), batch),
            Message::FragmentHeader(header) => {
                self.parts.header(now, &of, header, frame).unwrap();
                return None;
            }
            Message::Fragment(fragment) => {
                let batch = fragment.batch;
                let mut said =
                    update(&self.parts.fragment(now, &of, fragment, frame).unwrap()?.update, batch);
                said["in parts"] = true.into();
                said
            }
            Message::Leave => json!({ "leave": "document" }),
            Message::Ack { batch, status } => json!({ "ack": number(batch), "status": spoken(&status) }),
            other => panic!("{other:?}"),
        })
    }
}

fn link(name: &str) -> LinkId {
    let (kind, number) = name.split_once(' ').unwrap();
    let number = number.parse().unwrap();
    if kind == "uplink" { LinkId::Uplink(number as u16) } else { LinkId::Channel(number) }
}

/// The words that a name is made of.
fn spoken(name: &impl std::fmt::Debug) -> String {
    let mut words = String::new();
    for letter in format!("{name:?}").chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

fn told(event: Event) -> Value {
    match event {
        Event::Presence => json!({ "event": "presence" }),
        Event::Joined(link) => json!({ "event": "joined", "link": link.to_string() }),
        Event::ReadOnly(link) => json!({ "event": "reads only", "link": link.to_string() }),
        Event::Refused(link, _) => json!({ "event": "refused", "link": link.to_string() }),
        Event::StoreFailed => json!({ "event": "not stored" }),
        Event::Cut(link, reason) => {
            json!({ "event": "ended", "link": link.to_string(), "reason": spoken(&reason) })
        }
    }
}

fn presence_frame(said: &Value) -> Bytes {
    let message = match said.as_str() {
        Some("join") => Message::JoinRequest { auth: Bytes::new(), version: Bytes::new() },
        Some("joined") => showing(&[]),
        _ => return sync::update(&presence(), BatchId::from(1), &[presence_bytes::from_json(said)]).unwrap(),
    };
    message.encode(&presence()).unwrap()
}

/// What says that the changes of these authors came twice.
fn came_twice(authors: &Value) -> Bytes {
    let authors = authors.as_array().unwrap().iter().map(|author| author.as_str().unwrap());
    let bytes = authors.flat_map(|author| author.parse::<u64>().unwrap().to_le_bytes());
    b"twice".iter().copied().chain(bytes).collect()
}

fn encoded(version: &Value) -> Bytes {
    let entries = version.as_object().unwrap().iter();
    let version: VersionVector =
        entries.map(|(author, end)| (author.parse().unwrap(), end.as_i64().unwrap() as i32)).collect();
    version.encode().into()
}

fn decoded(version: &[u8]) -> Value {
    let version = VersionVector::decode(version).unwrap();
    version.iter().map(|(author, end)| (author.to_string(), json!(end))).collect::<Map<_, _>>().into()
}

/// What an update has, by author: from where to where.
fn changes(update: &[u8]) -> Value {
    let meta = LoroDoc::decode_import_blob_meta(update, false).unwrap();
    let spans = missing(&meta.partial_end_vv, &meta.partial_start_vv);
    let change = |span: IdSpan| (span.peer.to_string(), json!([span.counter.start, span.counter.end]));
    spans.into_iter().map(change).collect::<Map<_, _>>().into()
}

#[test]
fn every_implementation_says_the_same_to_the_same() {
    let vectors = vectors::read("engine");
    for script in vectors["scripts"].as_array().unwrap() {
        let name = script["name"].as_str().unwrap();
        let mut actor = Actor::new(&vectors, script);
        for step in script["steps"].as_array().unwrap() {
            let at = step["at"].as_u64().unwrap();
            let now = actor.start + Duration::from_millis(at);
            let said = Value::from(actor.step(now, &step["in"]));
            assert_eq!(said, step["out"], "{name}, after {at} ms, to {}", step["in"]);
            if let Some(expected) = step.get("then") {
                let status = actor.engine.status();
                let unacknowledged: usize = status.links.iter().map(|link| link.unacknowledged).sum();
                let online: Vec<_> = actor.engine.online(now).into_iter().map(|one| one.session).collect();
                let all = json!({
                    "caught up": actor.engine.is_caught_up(),
                    "stored": status.stored,
                    "unacknowledged": unacknowledged,
                    "online": online,
                });
                for (what, expected) in expected.as_object().unwrap() {
                    assert_eq!(all[what], *expected, "{name}, {what} after {at} ms");
                }
            }
        }
    }
}

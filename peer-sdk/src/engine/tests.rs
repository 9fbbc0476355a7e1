//! What strangers send ends their own link at most, with a reason, and never takes more memory than they may have.

mod hostile;
mod lies;
mod scripts;
pub(super) mod vectors;

use super::*;
use loro::{ExportMode, LoroDoc};
use wire::id::RoomId;
use wire::sync::{self, Crdt, Message, Room};

/// A link that behaves, and one that does not.
const GOOD: LinkId = LinkId::Guest(1);

/// An engine with one guest who behaves, on a clock that stands still unless it is moved.
struct Bench {
    now: Instant,
    engine: Engine,
    minted: u64,
    batches: u64,
    author: LoroDoc,
}

fn room() -> Room {
    Room { crdt: Crdt::Loro, id: RoomId::try_from("plan").unwrap() }
}

fn presence() -> Room {
    Room { crdt: Crdt::Ephemeral, ..room() }
}

fn another() -> Room {
    Room { crdt: Crdt::Loro, id: RoomId::try_from("another").unwrap() }
}

fn asking(version: &[u8]) -> Message {
    Message::JoinRequest { auth: Bytes::new(), version: Bytes::copy_from_slice(version) }
}

fn showing(version: &[u8]) -> Message {
    let version = Bytes::copy_from_slice(version);
    Message::JoinOk { permission: sync::Permission::Write, version, extra: Bytes::new() }
}

fn version(entries: &[(u64, i32)]) -> Vec<u8> {
    entries.iter().copied().collect::<VersionVector>().encode()
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let config = Config {
            room: room().id,
            session: PeerId::from("us"),
            seed: 1,
            wall: 1_800_000_000_000,
            uplinks: vec![Bytes::new()],
            by_author: Vec::new(),
            channels: 8,
        };
        let engine = Engine::new(now, config, &[]).unwrap();
        let author = LoroDoc::new();
        author.set_peer_id(7).unwrap();
        let mut bench = Self { now, engine, minted: 1, batches: 0, author };
        bench.tell(Input::Tick);
        bench.tell(Input::SignalingUp);
        bench.tell(Input::Up { link: GOOD, frame: 256 << 10 });
        bench.hear(GOOD, asking(&[]).encode(&room()).unwrap());
        bench
    }

    /// One input, with a disk that takes everything at once, an application that has what the author wrote, and a network
    /// that takes nothing but what is for the good one.
    fn tell(&mut self, input: Input) -> Vec<Output> {
        let mut all = Vec::new();
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.engine.handle(self.now, input);
            while let Some(output) = self.engine.poll() {
                match &output {
                    Output::Append { ticket, .. } | Output::Compact { ticket, .. } => {
                        inputs.push_back(Input::Stored { ticket: *ticket, result: Ok(()) });
                    }
                    Output::Restore => {
                        let all = self.author.export(ExportMode::all_updates()).unwrap();
                        inputs.push_back(Input::Restored(vec![all.into()]));
                    }
                    Output::Send { link, frame } if *link == GOOD => {
                        inputs.push_back(Input::Drained { link: GOOD, bytes: frame.len() });
                    }
                    _ => {}
                }
                all.push(output);
            }
        }
        all
    }

    fn hear(&mut self, link: LinkId, frame: impl Into<Bytes>) -> Vec<Output> {
        self.tell(Input::Frame { link, frame: frame.into() })
    }

    fn wait(&mut self, time: Duration) -> Vec<Output> {
        self.now += time;
        self.tell(Input::Tick)
    }

    fn links(&mut self) -> [LinkId; 3] {
        [self.guest(), self.channel(), self.uplink()]
    }

    /// A link that has just come up.
    fn guest(&mut self) -> LinkId {
        self.minted += 1;
        let link = LinkId::Guest(self.minted);
        self.tell(Input::Up { link, frame: 256 << 10 });
        link
    }

    fn channel(&mut self) -> LinkId {
        self.minted += 1;
        let from = PeerId::from(format!("them {}", self.minted).as_str());
        let offer = Input::Signalled { from, kind: SignalKind::Offer, token: None, data: Bytes::new() };
        let outputs = self.tell(offer);
        let made = outputs.iter().find_map(|output| match output {
            Output::Connect { channel, .. } => Some(LinkId::Channel(*channel)),
            _ => None,
        });
        let link = made.unwrap();
        self.tell(Input::Up { link, frame: 64 << 10 });
        link
    }

    fn uplink(&mut self) -> LinkId {
        let link = LinkId::Uplink(0);
        self.tell(Input::Down { link, end: End::Lost });
        self.tell(Input::Up { link, frame: 256 << 10 });
        link
    }

    /// Has the link take part.
    fn join(&mut self, link: LinkId) {
        let message = if let LinkId::Uplink(_) = link { showing(&[]) } else { asking(&[]) };
        self.hear(link, message.encode(&room()).unwrap());
    }

    fn is_up(&self, link: LinkId) -> bool {
        self.engine.links.contains_key(&link)
    }

    fn weight(&self, link: LinkId) -> [usize; 3] {
        self.engine.links[&link].weight()
    }

    /// The good one still brings edits, and is thanked.
    fn assert_good(&mut self) {
        let before = self.author.oplog_vv();
        self.author.get_text("t").push_str("more").unwrap();
        self.author.commit();
        let update = self.author.export(ExportMode::updates(&before)).unwrap();
        self.batches += 1;
        let batch = wire::id::BatchId::from(self.batches);
        let outputs = self.hear(GOOD, sync::update(&room(), batch, &[update]).unwrap());
        let thanks = sync::ack(&room(), batch, sync::Status::Ok);
        let thanked =
            outputs.iter().any(|said| matches!(said, Output::Send { link: GOOD, frame } if *frame == thanks));
        assert!(thanked, "{outputs:?}");
        assert!(self.engine.version().includes_vv(&self.author.oplog_vv()));
    }
}

/// Why a link was cut; nobody else's was.
fn cut(outputs: &[Output], bad: LinkId) -> Option<Reason> {
    let mut why = None;
    for output in outputs {
        if let Output::Cut { link, reason } = output {
            assert_eq!(*link, bad, "cut for what {bad} did: {reason}");
            why = Some(*reason);
        }
    }
    why
}

//! Many rooms with a document each, which outlast the run: what they cost a server that keeps them.

use std::time::Instant;

use anyhow::Context;
use bytesize::ByteSize;
use loro::LoroDoc;

use super::{
    Settings,
    document::{Grown, equal},
    named,
    visitor::Visitor,
};
use crate::{
    live::Live,
    report::{Report, grouped},
    stop,
};

/// What is reported.
pub(super) const FIGURES: &[&str] = &[
    "rooms",
    "document_text_bytes",
    "rooms_written",
    "rooms_found",
    "rooms_per_second",
    "server_rss_before_bytes",
    "server_rss_after_bytes",
];

/// Sees to it that each of `rooms` holds its document: writes it where there is none, else reads and compares it.
/// The same seed means the same rooms and documents.
pub(super) fn run(settings: &Settings, rooms: u32, size: ByteSize) -> anyhow::Result<Report> {
    let bytes = usize::try_from(size.as_u64()).context("too large for this machine")?;
    let resident = || settings.server.as_ref().and_then(|server| server.resident().ok());
    let started = Instant::now();
    let (mut written, mut found) = (0, 0);
    let mut report = Report::new("relay, stored rooms");
    let before = resident();
    let live = Live::new(rooms.into(), "rooms");
    for nth in (0..rooms).take_while(|_| !stop::is_asked()) {
        let grown = Grown::new(bytes, settings.seed.wrapping_add(nth.into()));
        let document = LoroDoc::new();
        let mut visitor = Visitor::open(
            &settings.target,
            settings.protocol,
            named(&format!("loadtest-stored-{}-{nth}", settings.seed)),
        )?;
        visitor.join(&document)?;
        if document.oplog_vv().is_empty() {
            visitor.write(&grown.updates)?;
            written += 1;
        } else if equal(&document, &grown.doc) {
            found += 1;
        } else {
            report.fail(format!("room {nth} holds another document than was written"));
        }
        visitor.close();
        if nth % 100 == 99 {
            let done = u64::from(nth) + 1;
            live.show_line(done, &format!("{} rooms", grouped(done)));
        }
    }
    report.count("rooms", rooms.into());
    report.count("document_text_bytes", size.as_u64());
    report.count("rooms_written", written);
    report.count("rooms_found", found);
    report.number("rooms_per_second", f64::from(rooms) / started.elapsed().as_secs_f64());
    report.number("server_rss_before_bytes", before.map(|bytes| bytes as f64));
    report.number("server_rss_after_bytes", resident().map(|bytes| bytes as f64));
    Ok(report)
}

//! The application's document, and the difference between it and a version.

use bytes::Bytes;
use loro::{ExportMode, LoroDoc, VersionVector};

use crate::engine::missing;

/// Everything that a document has and somebody with this version lacks; `None` if nothing. What is edited and not
/// committed yet is committed first.
#[must_use]
pub fn difference(doc: &LoroDoc, version: &VersionVector) -> Option<Bytes> {
    doc.commit();
    let spans = missing(&doc.oplog_vv(), version);
    if spans.is_empty() {
        return None;
    }
    let update = doc.export(ExportMode::updates_in_range(spans));
    Some(update.expect("changes that are here can be exported").into())
}

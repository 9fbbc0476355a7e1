//! Reading keys, tokens, secrets and certificates again when somebody asks, not only at the next interval.

use std::sync::Arc;

use crate::metrics::Metrics;
use crate::signaling::Signaling;
use crate::tls::Tls;
use crate::watched::Change;

/// What can be read again while the server runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reload {
    signaling: Arc<Signaling>,
    tls: Option<Tls>,
}

impl Reload {
    pub(crate) fn new(signaling: Arc<Signaling>, tls: Option<Tls>) -> Self {
        Self { signaling, tls }
    }

    /// Looks at every file that the configuration names. Ready when what has changed is in force; what is no good is
    /// logged and counted, and the value before stays. The configuration file itself is only read at the start.
    pub async fn now(&self) {
        let report = counted(self.signaling.metrics());
        self.signaling.access().reload(&report).await;
        self.signaling.ice().reload(&report).await;
        if let Some(tls) = &self.tls {
            tls.reload(&report).await;
        }
    }
}

/// Counts each change of a file.
pub(crate) fn counted(metrics: &Arc<Metrics>) -> impl Fn(&Change) + Clone + use<> {
    let metrics = Arc::clone(metrics);
    move |change| match change {
        Change::None => {}
        Change::Renewed => metrics.reloads.inc(),
        Change::Refused(_) => metrics.reload_failures.inc(),
    }
}

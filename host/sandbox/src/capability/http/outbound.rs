//! What a handler may send, and its connections.

use std::time::Duration;

use ureq::Agent;
use ureq::unversioned::transport::DefaultConnector;

use super::breakers::Breakers;
use super::guard::Guard;
use tidemill_core::policy::address::Networks;
use tidemill_core::policy::breaker::BreakerPolicy;
use tidemill_core::policy::outbound::Grant;
use tidemill_core::policy::target::Target;

/// The status line and the headers of an answer.
pub(super) const ANSWER_HEAD_BYTES_MAX: usize = 32 << 10;

/// Connections that are kept open for the next request, of one handler.
const IDLE_CONNECTIONS_MAX: usize = 16;

pub struct Outbound {
    grants: Vec<Grant>,
    /// What the manifest requests; none = no list there, any.
    asked: Option<Vec<Grant>>,
    pub(super) gates: Breakers,
    pub(super) agent: Agent,
}

/// What came of one request, for the metrics.
#[derive(Debug, Clone, Copy)]
pub struct SentRequest {
    pub result: &'static str,
    pub took: Duration,
}

impl Outbound {
    /// Requests that one of the grants allows may go to public addresses, and to those networks.
    pub fn new(handler: &str, grants: Vec<Grant>, networks: Networks, breaker: BreakerPolicy) -> Self {
        let config = Agent::config_builder()
            // The environment is the operator's, not the plugin's; and a proxy would resolve names by itself.
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(ANSWER_HEAD_BYTES_MAX)
            .input_buffer_size(2 * ANSWER_HEAD_BYTES_MAX)
            .output_buffer_size(ANSWER_HEAD_BYTES_MAX)
            .max_idle_connections(IDLE_CONNECTIONS_MAX)
            .max_idle_connections_per_host(IDLE_CONNECTIONS_MAX)
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::default(), Guard::new(handler, networks));
        Self { grants, asked: None, gates: Breakers::new(breaker), agent }
    }

    pub(super) fn allows(&self, method: &str, target: &Target) -> bool {
        let among = |grants: &[Grant]| grants.iter().any(|grant| grant.allows(method, target));
        among(&self.grants) && self.asked.as_deref().is_none_or(among)
    }

    /// From now on it also refuses what is not requested.
    pub fn narrow(&mut self, asked: Vec<Grant>) {
        self.asked = Some(asked);
    }
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").field("grants", &self.grants).field("gates", &self.gates).finish_non_exhaustive()
    }
}

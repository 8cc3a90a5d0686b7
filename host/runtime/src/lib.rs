//! The host at work: `host` runs its tasks, `pipeline` takes a batch through, `reload` swaps plugins and settings.

pub mod agreement;
pub mod build;
pub mod canary;
pub mod consumer;
mod exposed;
pub mod gaps;
pub mod heartbeat;
pub mod history;
pub mod host;
mod janitor;
pub mod loading;
pub mod observe;
pub mod options;
pub mod patience;
mod pause;
pub mod pipeline;
pub mod publisher;
pub mod reload;
mod scheduler;
pub mod shadow;
pub mod shutdown;
pub mod status;
pub mod token;

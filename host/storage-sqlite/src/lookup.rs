//! What the inbox and the state hold, before a batch is handled.

use std::sync::Arc;

use uuid::Uuid;

use super::error::Result;
use super::inbox::Inbox;
use super::tx::Tx;
use super::{state, subscriptions};
use tidemill_core::model::delivery::{KeyState, Subscription};
use tidemill_storage::{LOOK_UP_BYTES_MAX, LookUp};

pub(crate) fn look_up(tx: &Tx<'_>, subscription: &Subscription, ids: &[Uuid], keys: &[Arc<str>]) -> Result<LookUp> {
    let Some(subscription) = subscriptions::seek(tx, subscription)? else {
        return Ok(LookUp { seen: vec![None; ids.len()], states: vec![KeyState::default(); keys.len()] });
    };
    let inbox = Inbox::look(tx, subscription.id)?;
    let seen = ids.iter().map(|id| inbox.find(tx, *id)).collect::<Result<_>>()?;
    let (mut states, mut bytes) = (Vec::with_capacity(keys.len()), 0);
    for key in keys {
        if bytes > LOOK_UP_BYTES_MAX {
            break;
        }
        let state = state::read(tx, subscription.id, key)?;
        bytes += state.bytes();
        states.push(state);
    }
    Ok(LookUp { seen, states })
}

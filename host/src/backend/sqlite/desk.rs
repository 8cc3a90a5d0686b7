//! What people do to a source: dead letters replayed, dropped, edited; pausing; and the audit records of all that.

use bytes::Bytes;

use super::dead;
use super::tx::Tx;
use crate::backend::{Act, AuditRecord, Result};
use crate::model::delivery::{EntryId, Source};

pub fn replay(tx: &mut Tx<'_>, source: &Source, ids: &[EntryId], _act: &Act) -> Result<usize> {
    dead::replay(tx, source, ids)
}

pub fn drop_dead(_tx: &mut Tx<'_>, _source: &Source, _ids: &[EntryId], _act: &Act) -> Result<usize> {
    Err(crate::backend::Error::Refused("being built".to_owned()))
}

pub fn edit(_tx: &mut Tx<'_>, _source: &Source, _id: EntryId, _body: &Bytes, _act: &Act) -> Result<bool> {
    Err(crate::backend::Error::Refused("being built".to_owned()))
}

pub fn set_paused(_tx: &mut Tx<'_>, _source: &Source, _paused: bool, _act: &Act) -> Result<()> {
    Err(crate::backend::Error::Refused("being built".to_owned()))
}

pub fn paused(_tx: &Tx<'_>, sources: &[Source]) -> Result<Vec<bool>> {
    Ok(vec![false; sources.len()])
}

pub fn audit(_tx: &Tx<'_>, _source: &Source, _after: Option<EntryId>, _max: usize) -> Result<Vec<AuditRecord>> {
    Err(crate::backend::Error::Refused("being built".to_owned()))
}

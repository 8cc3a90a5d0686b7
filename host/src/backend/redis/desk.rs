//! What people do to a source: dead letters replayed, dropped, edited; pausing; and the audit records of all that.

use bytes::Bytes;

use super::Redis;
use crate::backend::{Act, AuditRecord, Result};
use crate::model::delivery::{EntryId, Source};

impl Redis {
    pub(super) async fn replay_letters(&self, source: &Source, ids: &[EntryId], _act: &Act) -> Result<usize> {
        self.replay_dead(source, ids).await
    }

    pub(super) async fn drop_letters(&self, _source: &Source, _ids: &[EntryId], _act: &Act) -> Result<usize> {
        Err(crate::backend::Error::Refused("being built".to_owned()))
    }

    pub(super) async fn edit_letter(&self, _source: &Source, _id: EntryId, _body: Bytes, _act: &Act) -> Result<bool> {
        Err(crate::backend::Error::Refused("being built".to_owned()))
    }

    pub(super) async fn pause_or_resume(&self, _source: &Source, _paused: bool, _act: &Act) -> Result<()> {
        Err(crate::backend::Error::Refused("being built".to_owned()))
    }

    pub(super) async fn which_are_paused(&self, sources: &[Source]) -> Result<Vec<bool>> {
        Ok(vec![false; sources.len()])
    }

    pub(super) async fn list_audit(
        &self,
        _source: &Source,
        _after: Option<EntryId>,
        _max: usize,
    ) -> Result<Vec<AuditRecord>> {
        Err(crate::backend::Error::Refused("being built".to_owned()))
    }
}

mod url;
use std::sync::Arc;
pub(crate) use self::url::PostgresUrl;
use crate::{OpenOptions, Row, Scope, Statement, StorageError, Tx, Value, ValueRef, wakeup::Hub};
pub(crate) struct Postgres;
pub(crate) struct Connection;
impl Connection {
    pub fn run(&mut self, _: &Statement, _: &[Value<'_>], _: &mut dyn FnMut(&Row<'_>) -> bool) -> Result<u64, StorageError> { Err(StorageError::Closed) }
    pub fn control(&mut self, _: &str) -> Result<(), StorageError> { Err(StorageError::Closed) }
}
pub(crate) fn column(_: &tokio_postgres::Row, _: usize) -> ValueRef<'_> { ValueRef::Null }
impl Postgres {
    pub async fn open(_: &str, _: &OpenOptions<'_>, _: Arc<Hub>) -> Result<Self, StorageError> { Err(StorageError::Closed) }
    pub async fn read<T, E: From<StorageError>>(&self, _: Scope, _: impl FnOnce(&mut Tx) -> Result<T, E>) -> Result<T, E> { Err(StorageError::Closed.into()) }
    pub async fn write<T, E: From<StorageError>>(&self, _: Scope, _: impl FnMut(&mut Tx) -> Result<T, E>) -> Result<T, E> { Err(StorageError::Closed.into()) }
    pub async fn close(&self) {}
}

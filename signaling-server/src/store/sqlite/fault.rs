//! What can go wrong within a transaction.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::store::StoreError;

/// What makes an operation fail: the database, or a rule of the store.
#[derive(Debug)]
pub(super) enum Fault {
    Sql(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    /// Whether it may be due to one of several writes alone, and comes soon enough to try each by itself.
    pub(super) fn may_be_of_one(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        let code = error.sqlite_error_code();
        matches!(
            code,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::DiskFull | ErrorCode::ConstraintViolation)
        )
    }

    pub(super) fn at(self, file: &Path) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                StoreError::DiskFull { file: file.to_owned() }
            }
            Self::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                let problem = "another process holds the database locked".to_owned();
                StoreError::Disk { file: file.to_owned(), problem }
            }
            Self::Sql(error) => StoreError::Disk { file: file.to_owned(), problem: error.to_string() },
        }
    }
}

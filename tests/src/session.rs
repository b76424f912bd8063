//! A session of the database in one of its roles: what a statement does there, or why it is refused. Nothing of it stays.

use crate::environment;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Why a statement was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The SQLSTATE.
    pub code: String,
    /// The message without its details.
    pub message: String,
}

/// A connection, and who it is.
#[derive(Debug)]
pub struct Session {
    client: Client,
    /// What each transaction begins with.
    begin: String,
    /// The role whose rights it has.
    pub role: String,
}

impl Session {
    /// The role of a function, which logs in for itself as the function does: through the pooler.
    pub async fn of_function(role: &str) -> Self {
        Self { client: connect(&environment::pooler(role)).await, begin: "BEGIN".to_owned(), role: role.to_owned() }
    }

    /// A role as whom nobody logs in, taken by the administrator.
    pub async fn of_owner(role: &str) -> Self {
        let begin = format!("BEGIN; SET LOCAL ROLE {role}");
        Self { client: connect(&environment::admin_database()).await, begin, role: role.to_owned() }
    }

    /// The rows that a statement gives or changes, in a transaction that begins with another and is rolled back.
    ///
    /// # Errors
    /// When one of the two is refused.
    pub async fn rows(&self, opening: &str, statement: &str) -> Result<u64, Refused> {
        let messages = self.run(opening, statement).await?;
        let ends =
            messages.iter().filter_map(|message| if let SimpleQueryMessage::CommandComplete(rows) = message { Some(*rows) } else { None });
        // The last one is the rollback's.
        Ok(ends.rev().nth(1).expect("each statement has an end"))
    }

    /// The first column of the last row of a statement in such a transaction.
    ///
    /// # Errors
    /// When one of the two is refused.
    pub async fn answer(&self, opening: &str, statement: &str) -> Result<String, Refused> {
        let messages = self.run(opening, statement).await?;
        let mut rows = messages.iter().filter_map(|message| if let SimpleQueryMessage::Row(row) = message { row.get(0) } else { None });
        Ok(rows.next_back().unwrap_or_default().to_owned())
    }

    async fn run(&self, opening: &str, statement: &str) -> Result<Vec<SimpleQueryMessage>, Refused> {
        let answer = self.client.simple_query(&format!("{}; {opening}; {statement}; ROLLBACK", self.begin)).await;
        match answer {
            Ok(messages) => Ok(messages),
            Err(error) => {
                let said = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error:?}"));
                let refused = Refused { code: said.code().code().to_owned(), message: said.message().to_owned() };
                self.client.batch_execute("ROLLBACK").await.expect("what failed can be rolled back");
                Err(refused)
            }
        }
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.unwrap_or_else(|error| panic!("a session cannot be had: {error:?}"));
    tokio::spawn(async {
        // The client's calls say when the connection is gone.
        let _ = connection.await;
    });
    client
}

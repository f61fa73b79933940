//! Both databases for a test, and direct SQL access to look and to tamper.

use std::{io::Write, net::SocketAddr, path::Path, sync::Arc, sync::Once, thread, time::Duration};

use tokio_postgres::NoTls;
use uuid::Uuid;

use super::server::Options;

const POSTGRES_URL_VARIABLE: &str = "MUSTER_TEST_POSTGRES_URL";

/// Where a server keeps its rows.
#[derive(Clone, Default)]
pub enum Place {
    /// `muster.db` in the data folder.
    #[default]
    Sqlite,
    /// A PostgreSQL database of the test's own.
    Postgres(Arc<PostgresDatabase>),
}

/// A database on the test server; dropped with the last server that uses it.
pub struct PostgresDatabase {
    server: String,
    name: String,
}

impl PostgresDatabase {
    async fn create(server: &str) -> PostgresDatabase {
        let name = format!("muster_it_{}", Uuid::new_v4().simple());
        run(server, &format!("CREATE DATABASE {name}"))
            .await
            .expect("a database can be made");
        PostgresDatabase {
            server: server.to_owned(),
            name,
        }
    }

    /// The URL of this database.
    pub fn url(&self) -> String {
        let (server, _) = self
            .server
            .rsplit_once('/')
            .expect("the URL of the test server names a database");
        format!("{server}/{}", self.name)
    }
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        let (server, sql) = (
            self.server.clone(),
            format!("DROP DATABASE {} WITH (FORCE)", self.name),
        );
        // `drop` is not asynchronous, and a runtime must not block on itself.
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(run(&server, &sql)))
        });
        // The server is thrown away soon after, so a database that stays behind does no harm.
        let _ = dropping.join();
    }
}

impl Options {
    /// The same options with the same PostgreSQL database, reached at another address.
    pub fn reached_at(&self, address: SocketAddr) -> Options {
        let Place::Postgres(database) = &self.place else {
            panic!("only a server is reached at an address");
        };
        let (who, place) = database.server.rsplit_once('@').expect("the URL names a user");
        let (_, name) = place.split_once('/').expect("the URL names a database");
        let behind = PostgresDatabase {
            server: format!("{who}@{address}/{name}"),
            name: database.name.clone(),
        };
        Options {
            place: Place::Postgres(Arc::new(behind)),
            ..self.clone()
        }
    }

    /// The same options with the same PostgreSQL database and a password in its URL, and that password: the one that the server
    /// asks for, or `otherwise` where it asks for none.
    pub fn with_password(&self, otherwise: &str) -> (Options, String) {
        let Place::Postgres(database) = &self.place else {
            panic!("only a server asks for a password");
        };
        let (who, place) = database.server.rsplit_once('@').expect("the URL names a user");
        let who = who.split_once("://").map_or(who, |(_, user)| user);
        let (user, password) = who.split_once(':').unwrap_or((who, otherwise));
        let told = PostgresDatabase {
            server: format!("postgres://{user}:{password}@{place}"),
            name: database.name.clone(),
        };
        let options = Options {
            place: Place::Postgres(Arc::new(told)),
            ..self.clone()
        };
        (options, password.to_owned())
    }

    /// This database as the server's superuser sees it, where the run names one; says so loudly where not.
    pub async fn as_superuser(&self) -> Option<Store> {
        const VARIABLE: &str = "MUSTER_TEST_POSTGRES_ADMIN_URL";
        let Place::Postgres(database) = &self.place else {
            panic!("only a server has a superuser");
        };
        let Some(server) = super::variable(VARIABLE) else {
            let _ = writeln!(std::io::stderr(), "SKIPPED postgres: {VARIABLE} is not set");
            return None;
        };
        let (place, _) = server.rsplit_once('/').expect("the URL names a database");
        Some(Store::connect(&format!("{place}/{}", database.name)).await)
    }

    /// `host:port` of the PostgreSQL server.
    pub fn database_address(&self) -> String {
        let Place::Postgres(database) = &self.place else {
            panic!("only a server has an address");
        };
        let (_, place) = database.server.rsplit_once('@').expect("the URL names a user");
        let (address, _) = place.split_once('/').expect("the URL names a database");
        address.to_owned()
    }

    /// The same options with a database of their own of the same kind.
    pub async fn fresh(&self) -> Options {
        let place = match &self.place {
            Place::Sqlite => Place::Sqlite,
            Place::Postgres(database) => {
                Place::Postgres(Arc::new(PostgresDatabase::create(&database.server).await))
            }
        };
        Options {
            place,
            ..self.clone()
        }
    }
}

/// Runs a test on SQLite and on PostgreSQL, one after the other.
pub async fn each_database(test: impl AsyncFn(Options)) {
    println!("on SQLite");
    test(Options::default()).await;
    on_postgres(test).await;
}

/// Runs a test on PostgreSQL, where there is one.
pub async fn on_postgres(test: impl AsyncFn(Options)) {
    let Some(server) = postgres_url() else { return };
    println!("on PostgreSQL");
    let database = PostgresDatabase::create(&server).await;
    test(Options {
        place: Place::Postgres(Arc::new(database)),
        ..Options::default()
    })
    .await;
}

/// The PostgreSQL server for tests. Without one, says so loudly, or panics where that is not allowed.
fn postgres_url() -> Option<String> {
    static SAID: Once = Once::new();
    let url = super::variable(POSTGRES_URL_VARIABLE);
    if url.is_none() {
        let required = super::variable("CI").as_deref() == Some("true")
            || super::variable("MUSTER_REQUIRE_PEERS").as_deref() == Some("1");
        assert!(
            !required,
            "{POSTGRES_URL_VARIABLE} is not set, and this run must not skip PostgreSQL"
        );
        // Straight to the stream: the test runner swallows what a passing test prints.
        SAID.call_once(|| {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED postgres: {POSTGRES_URL_VARIABLE} is not set"
            );
        });
    }
    url
}

async fn run(url: &str, sql: &str) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(connection);
    let done = client.batch_execute(sql).await;
    drop(client);
    let _ = connection.await;
    done
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Cell {
    #[track_caller]
    pub fn integer(&self) -> i64 {
        match self {
            Cell::Integer(value) => *value,
            other => panic!("not an integer: {other:?}"),
        }
    }

    #[track_caller]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Cell::Bytes(bytes) => bytes,
            other => panic!("not bytes: {other:?}"),
        }
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        match self {
            Cell::Text(text) => text,
            other => panic!("not text: {other:?}"),
        }
    }
}

/// The server's database, past the server: as whoever holds the disk or the superuser's password.
pub enum Store {
    Sqlite(rusqlite::Connection),
    Postgres(tokio_postgres::Client),
}

impl Store {
    pub async fn open(place: &Place, data_dir: &Path) -> Store {
        match place {
            Place::Sqlite => {
                let connection =
                    rusqlite::Connection::open(data_dir.join("muster.db")).expect("the database opens");
                connection
                    .busy_timeout(Duration::from_secs(20))
                    .expect("a time-out can be set");
                // Who tampers is not held back by the schema's own rules.
                connection
                    .pragma_update(None, "foreign_keys", false)
                    .expect("a setting can be made");
                Store::Sqlite(connection)
            }
            Place::Postgres(database) => Store::connect(&database.url()).await,
        }
    }

    async fn connect(url: &str) -> Store {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("it connects");
        tokio::spawn(connection);
        // A login that is no superuser is under row-level security too: look at every tenant.
        client
            .batch_execute("SET muster.tenant = '*'")
            .await
            .expect("the scope can be set");
        Store::Postgres(client)
    }

    /// Runs one statement; how many rows it changed.
    pub async fn execute(&self, sql: &str) -> u64 {
        self.try_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// As [`Store::execute`], for what the database may refuse.
    pub async fn try_execute(&self, sql: &str) -> Result<u64, String> {
        match self {
            Store::Sqlite(connection) => connection
                .execute(sql, [])
                .map(|rows| rows as u64)
                .map_err(|error| error.to_string()),
            Store::Postgres(client) => client
                .execute(sql, &[])
                .await
                .map_err(|error| format!("{error:?}")),
        }
    }

    /// Every row of a query.
    pub async fn rows(&self, sql: &str) -> Vec<Vec<Cell>> {
        match self {
            Store::Sqlite(connection) => {
                sqlite_rows(connection, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
            }
            Store::Postgres(client) => {
                let rows = client
                    .query(sql, &[])
                    .await
                    .unwrap_or_else(|error| panic!("{sql}: {error}"));
                rows.iter().map(postgres_row).collect()
            }
        }
    }

    /// The first value of the only row of a query.
    pub async fn value(&self, sql: &str) -> Cell {
        let mut rows = self.rows(sql).await;
        assert_eq!(rows.len(), 1, "{sql}");
        rows.remove(0).remove(0)
    }

    /// How many rows a table has.
    pub async fn count(&self, table: &str) -> i64 {
        self.value(&format!("SELECT COUNT(*) FROM {table}"))
            .await
            .integer()
    }

    /// A literal of these bytes.
    pub fn blob(&self, bytes: &[u8]) -> String {
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Store::Sqlite(_) => format!("x'{text}'"),
            Store::Postgres(_) => format!("'\\x{text}'::bytea"),
        }
    }

    /// A literal of a UUID column.
    pub fn uuid(&self, id: Uuid) -> String {
        match self {
            Store::Sqlite(_) => self.blob(id.as_bytes()),
            Store::Postgres(_) => format!("'{id}'::uuid"),
        }
    }

    /// A literal of an id of the API such as `dev_…`.
    pub fn id(&self, text: &str) -> String {
        let (_, hex) = text.split_once('_').expect("an id has a prefix");
        self.uuid(Uuid::parse_str(hex).expect("an id ends in a UUID"))
    }
}

fn sqlite_rows(connection: &rusqlite::Connection, sql: &str) -> rusqlite::Result<Vec<Vec<Cell>>> {
    use rusqlite::types::ValueRef;
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        (0..columns)
            .map(|column| {
                Ok(match row.get_ref(column)? {
                    ValueRef::Null | ValueRef::Real(_) => Cell::Null,
                    ValueRef::Integer(value) => Cell::Integer(value),
                    ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
                    ValueRef::Blob(bytes) => Cell::Bytes(bytes.to_vec()),
                })
            })
            .collect()
    })?;
    rows.collect()
}

fn postgres_row(row: &tokio_postgres::Row) -> Vec<Cell> {
    use tokio_postgres::types::Type;
    let columns = row.columns().iter().enumerate();
    let cell = |(index, column): (usize, &tokio_postgres::Column)| {
        let found = match *column.type_() {
            Type::INT8 => row.get::<_, Option<i64>>(index).map(Cell::Integer),
            Type::INT4 => row
                .get::<_, Option<i32>>(index)
                .map(|value| Cell::Integer(value.into())),
            Type::BOOL => row
                .get::<_, Option<bool>>(index)
                .map(|value| Cell::Integer(value.into())),
            Type::BYTEA => row.get::<_, Option<Vec<u8>>>(index).map(Cell::Bytes),
            Type::TEXT | Type::VARCHAR | Type::NAME => row.get::<_, Option<String>>(index).map(Cell::Text),
            _ => row
                .get::<_, Option<PostgresUuid>>(index)
                .map(|id| Cell::Bytes(id.0)),
        };
        found.unwrap_or(Cell::Null)
    };
    columns.map(cell).collect()
}

/// A UUID as its 16 bytes, as SQLite has it.
struct PostgresUuid(Vec<u8>);

impl<'a> tokio_postgres::types::FromSql<'a> for PostgresUuid {
    fn from_sql(
        _: &tokio_postgres::types::Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(PostgresUuid(raw.to_vec()))
    }

    fn accepts(kind: &tokio_postgres::types::Type) -> bool {
        *kind == tokio_postgres::types::Type::UUID
    }
}

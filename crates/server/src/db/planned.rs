//! A database for tests, and what SQLite makes of our statements there: it plans them as on the connections of [`Db`](super::Db).

use rusqlite::Connection;

/// An empty database with the schema.
pub(super) fn database() -> Connection {
    let conn = Connection::open_in_memory().expect("a database in memory");
    super::keep_plans(&conn).expect("a setting that SQLite knows");
    conn.execute_batch(include_str!("../../../../migrations/0001-start.sql")).expect("the schema");
    conn
}

/// How SQLite goes about a statement, one step per line.
pub(super) fn plan(conn: &Connection, sql: &str) -> String {
    let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a statement");
    // Nothing is bound: with `keep_plans`, a plan does not hang on the values of parameters.
    let mut steps = explain.raw_query();
    let mut plan = String::new();
    while let Some(step) = steps.next().expect("a plan") {
        plan += &step.get::<_, String>("detail").expect("a step");
        plan.push('\n');
    }
    plan
}

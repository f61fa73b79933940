//! The log as tools read it: C2SP signed notes, tiles, entry bundles, and proofs, verified without the server's help.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_model::TenantId;
use muster_trust::{
    checkpoint::{Checkpoint, CheckpointBody},
    dsse::Envelope,
    merkle::{self, Hash, leaf_hash, verify_consistency},
    proof::LoggedProof,
    root::RootDocument,
    tile::{self, Tile, TilePath},
};
use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    api::Api,
    database::each_database,
    eventually,
    server::{Options, Server},
};

/// The tenant's first root document, as a device would pin it.
fn root_document(server: &Server) -> RootDocument {
    let path = server
        .data_dir()
        .join("keys/tenants")
        .join(&server.admin.tenant)
        .join("root.json");
    let text = std::fs::read(path).expect("the root document is there");
    let documents: Vec<Envelope> = serde_json::from_slice(&text).expect("it holds envelopes");
    RootDocument::verify_first(&documents[0], None).expect("it verifies")
}

fn tenant(server: &Server) -> TenantId {
    server.admin.tenant.parse().expect("it is a tenant")
}

/// The newest checkpoint, verified against the root document alone.
async fn checkpoint(api: &Api, root: &RootDocument) -> CheckpointBody {
    let answer = api.get("/log/checkpoint").await;
    assert!(answer.header("content-type").starts_with("text/plain"));
    answer.expect(200);
    let note = answer.text();
    Checkpoint::open(&note, &root.log_origin, &root.checkpoint_keys())
        .expect("the note verifies")
        .body
}

/// A checkpoint of at least `size` entries.
async fn checkpoint_of(api: &Api, root: &RootDocument, size: u64) -> CheckpointBody {
    eventually("the log has grown", PATIENCE, async || {
        let body = checkpoint(api, root).await;
        (body.size >= size).then_some(body)
    })
    .await
}

async fn grow(api: &Api, from: usize, to: usize) {
    for number in from..to {
        api.post("/policies", &json!({"name": format!("p-{number}")}))
            .await
            .expect(201);
    }
}

/// Everything that a tree of this size needs, fetched tile by tile.
async fn fetch_tiles(api: &Api, size: u64) -> HashMap<(u8, u64), Vec<Hash>> {
    let mut tiles = HashMap::new();
    for level in 0..=tile::MAX_LEVEL {
        for index in 0.. {
            let Some(tile) = Tile::in_tree(level, index, size) else {
                break;
            };
            let path = TilePath::Hashes(tile).to_string();
            let answer = api.get(&format!("/log/{path}")).await;
            assert!(answer.header("cache-control").contains("immutable"), "{path}");
            answer.expect(200);
            tiles.insert(
                (level, index),
                tile::decode_hashes(&answer.bytes).expect("a tile is hashes"),
            );
        }
    }
    tiles
}

fn hash_of(value: &Value) -> Hash {
    Hash::from_base64(value.as_str().expect("a hash is text")).expect("a hash is base64")
}

#[tokio::test(flavor = "multi_thread")]
async fn tiles_reproduce_the_signed_root_and_bundles_hash_to_the_leaves() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let (api, root) = (server.api().await, root_document(&server));
        grow(&api, 0, 270).await;
        let head = checkpoint_of(&api, &root, 270).await;
        let tiles = fetch_tiles(&api, head.size).await;
        assert!(tiles.contains_key(&(1, 0)), "the tree has two levels of tiles");
        let read =
            |tile: Tile| Ok::<_, ()>(tiles.get(&(tile.level, tile.index)).cloned().unwrap_or_default());
        assert_eq!(
            tile::root(head.size, read).expect("the tiles are whole"),
            head.root
        );

        let mut leaves = Vec::new();
        for index in 0.. {
            let Some(tile) = Tile::in_tree(0, index, head.size) else {
                break;
            };
            let answer = api.get(&format!("/log/{}", TilePath::Entries(tile))).await;
            answer.expect(200);
            let entries = tile::decode_entries(&answer.bytes).expect("a bundle is entries");
            assert_eq!(entries.len(), tile.width as usize);
            leaves.extend(entries.into_iter().map(leaf_hash));
        }
        let level_0: Vec<Hash> = (0..)
            .map_while(|index| tiles.get(&(0, index)))
            .flatten()
            .copied()
            .collect();
        assert_eq!(leaves, level_0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_entry_has_an_inclusion_proof() {
    let server = Server::start(Options::default()).await;
    let (api, root) = (server.api().await, root_document(&server));
    grow(&api, 0, 20).await;
    let head = checkpoint_of(&api, &root, 20).await;
    for entry in api.list("/log/entries?limit=500").await {
        for key in [entry["id"].clone(), json!(entry["index"].to_string())] {
            let got = api
                .get(&format!("/log/proof?entry={}", key.as_str().expect("text")))
                .await
                .ok();
            let note = got["checkpoint"].as_str().expect("a note is text");
            let at = Checkpoint::open(note, &root.log_origin, &root.checkpoint_keys())
                .expect("the note verifies")
                .body;
            assert!(at.size >= head.size);
            let proof = LoggedProof {
                entry: STANDARD
                    .decode(got["entry"].as_str().expect("text"))
                    .expect("it is base64"),
                index: got["index"].as_u64().expect("a number"),
                tree_size: got["tree_size"].as_u64().expect("a number"),
                hashes: got["hashes"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .map(hash_of)
                    .collect(),
            };
            let proven = proof.verify(&at, tenant(&server)).expect("the proof verifies");
            assert_eq!(proven.id.to_string(), entry["id"].as_str().expect("text"));
            assert_eq!(proven.action, entry["action"].as_str().expect("text"));
            let mut other = proof.clone();
            other.entry[40] ^= 1;
            assert!(other.verify(&at, tenant(&server)).is_err());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_head_is_consistent_with_every_newer_one() {
    let server = Server::start(Options::default()).await;
    let (api, root) = (server.api().await, root_document(&server));
    let mut heads = vec![checkpoint(&api, &root).await];
    for round in 0..4 {
        grow(&api, round * 7, round * 7 + 7).await;
        let size = heads.last().expect("there is one").size;
        heads.push(checkpoint_of(&api, &root, size + 7).await);
    }
    for (older, from) in heads.iter().enumerate() {
        for to in &heads[older..] {
            let path = format!("/log/consistency?from={}&to={}", from.size, to.size);
            let hashes: Vec<Hash> = api.get(&path).await.ok()["hashes"]
                .as_array()
                .expect("a list")
                .iter()
                .map(hash_of)
                .collect();
            verify_consistency(from.size, &from.root, to.size, &to.root, &hashes)
                .expect("the proof verifies");
            assert!(from.time <= to.time, "the log's time does not go back");
        }
    }
    assert_ne!(heads[0].root, merkle::empty_root());
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_the_tree_cannot_answer_are_refused() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let written = server.store().await.count("audit_entry").await;
        let written = u64::try_from(written).expect("a count is not negative");
        let head = checkpoint_of(&api, &root_document(&server), written).await;
        let size = head.size;
        let cases = [
            (format!("/log/consistency?from=5&to={}", size + 1), 400),
            (format!("/log/consistency?from={}", u64::MAX), 400),
            ("/log/consistency?from=2&to=1".to_owned(), 400),
            ("/log/consistency?from=-1".to_owned(), 400),
            ("/log/consistency?from=0".to_owned(), 200),
            ("/log/consistency?from=0&to=0".to_owned(), 200),
            (format!("/log/consistency?from={size}"), 200),
            (format!("/log/proof?entry={size}"), 404),
            (format!("/log/proof?entry={}", u64::MAX), 404),
            (format!("/log/proof?entry={}0", u64::MAX), 400),
            ("/log/proof?entry=-1".to_owned(), 400),
            ("/log/proof?entry=".to_owned(), 400),
            (format!("/log/proof?entry=ent_{}", "0".repeat(32)), 404),
            ("/log/proof".to_owned(), 400),
            ("/log/tile/0/000".to_owned(), 404),
            (format!("/log/tile/0/000.p/{}", size + 1), 404),
            ("/log/tile/0/000.p/0".to_owned(), 400),
            ("/log/tile/0/000.p/256".to_owned(), 400),
            ("/log/tile/0/0".to_owned(), 400),
            ("/log/tile/0/x000/000".to_owned(), 400),
            ("/log/tile/63/000".to_owned(), 404),
            ("/log/tile/64/000".to_owned(), 400),
            ("/log/tile/0/x999/x999/x999/x999/x999/999".to_owned(), 404),
            ("/log/tile/entries/999".to_owned(), 404),
            ("/log/tile/..%2f..%2fadmin.json".to_owned(), 400),
            (format!("/log/entries?after={}", i64::MAX), 200),
            (format!("/log/entries?after={}", i64::MIN), 200),
            (format!("/log/entries?after={}&order=newest", i64::MIN), 200),
            (format!("/log/entries?after={}", u64::MAX), 400),
            ("/log/entries?limit=-1".to_owned(), 400),
            ("/log/entries?order=sideways".to_owned(), 400),
        ];
        for (path, status) in cases {
            let answer = api.get(&path).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_has_an_entry_that_names_who_did_what_to_what() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let policy = api.post("/policies", &json!({"name": "named"})).await.expect(201);
    let helper = api
        .post("/clients", &json!({"name": "helper", "scopes": ["log:read"]}))
        .await
        .expect(201);
    api.delete(&format!(
        "/clients/{}",
        helper["client_id"].as_str().expect("text")
    ))
    .await
    .expect(204);
    let wanted = [
        ("policy.created", &policy["id"]),
        ("client.created", &helper["client_id"]),
        ("client.removed", &helper["client_id"]),
    ];
    let entries = eventually("the entries have their places", PATIENCE, async || {
        let entries = api.list("/log/entries?limit=500").await;
        entries
            .iter()
            .any(|entry| entry["action"] == "client.removed")
            .then_some(entries)
    })
    .await;
    for (action, object) in wanted {
        let found = entries
            .iter()
            .find(|entry| entry["action"] == action && entry["object"] == *object);
        let found = found.unwrap_or_else(|| panic!("{action} is in the log"));
        assert_eq!(
            (found["actor_kind"].as_str(), &found["actor"]),
            (Some("client"), &json!(server.admin.client_id))
        );
    }
    let all = api.get("/log/entries?limit=500").await.text();
    assert!(
        !all.contains(&server.admin.client_secret)
            && !all.contains(helper["client_secret"].as_str().expect("text"))
    );
}

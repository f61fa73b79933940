//! Two tenants of one installation.

use super::{
    api::Api,
    server::{AdminFile, Options, Server, create_tenant},
};

/// A server with two tenants, and a client with every scope of each.
pub struct Two {
    pub server: Server,
    pub a: Api,
    pub b: Api,
    pub b_admin: AdminFile,
}

impl Two {
    pub async fn start(options: Options) -> Two {
        let mut server = Server::start(options).await;
        server.stop().await;
        let file = create_tenant(&server, "other").await;
        server.restart().await;
        // The ports are those of the newest start; the credentials are the other tenant's.
        let made = AdminFile::read(&file);
        let b_admin = AdminFile {
            tenant: made.tenant,
            client_id: made.client_id,
            client_secret: made.client_secret,
            ..server.admin.clone()
        };
        let (a, b) = (server.api().await, Api::sign_in(&b_admin).await);
        Two {
            server,
            a,
            b,
            b_admin,
        }
    }
}

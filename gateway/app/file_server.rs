//! A small MCP server over stdio that serves one folder: what the demo puts Warden in front of.

use crate::exit::{Failure, Outcome};
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{ServerCapabilities, ServerConfig};
use rmcp::{ServerHandler, ServiceExt, tool, tool_handler, tool_router};
use std::path::{Component, Path, PathBuf};

/// See the module.
#[derive(Clone)]
struct Files {
    root: PathBuf,
}

/// A place in the folder.
#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Place {
    /// Relative to the served folder.
    path: String,
}

/// A text for a place in the folder.
#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Text {
    /// Relative to the served folder.
    path: String,
    /// What to write.
    text: String,
}

/// Reads until its input ends.
pub async fn run(root: &Path) -> Outcome {
    let root = root.canonicalize().map_err(|e| Failure::invalid(format!("`{}`: {e}", root.display())))?;
    let files = Files { root };
    let service = files.serve(rmcp::transport::stdio()).await.map_err(Failure::failed)?;
    service.waiting().await.map_err(Failure::failed)?;
    Ok(0)
}

#[tool_router]
impl Files {
    #[tool(description = "List the files of a folder", annotations(read_only_hint = true))]
    fn list_files(&self, Parameters(Place { path }): Parameters<Place>) -> Result<String, String> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.find(&path)?).map_err(|e| told(&path, &e))? {
            names.push(entry.map_err(|e| told(&path, &e))?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names.join("\n"))
    }

    #[tool(description = "Read a text file", annotations(read_only_hint = true))]
    fn read_file(&self, Parameters(Place { path }): Parameters<Place>) -> Result<String, String> {
        std::fs::read_to_string(self.find(&path)?).map_err(|e| told(&path, &e))
    }

    #[tool(description = "Write a text file", annotations(destructive_hint = false))]
    fn write_file(&self, Parameters(Text { path, text }): Parameters<Text>) -> Result<String, String> {
        std::fs::write(self.find(&path)?, &text).map_err(|e| told(&path, &e))?;
        Ok(format!("{} bytes written", text.len()))
    }

    #[tool(description = "Delete a file for good", annotations(destructive_hint = true))]
    fn delete_file(&self, Parameters(Place { path }): Parameters<Place>) -> Result<String, String> {
        std::fs::remove_file(self.find(&path)?).map_err(|e| told(&path, &e))?;
        Ok("deleted".into())
    }
}

impl Files {
    /// A place below the root; never above it, whatever the path says.
    fn find(&self, path: &str) -> Result<PathBuf, String> {
        let inside = Path::new(path.trim_start_matches('/'));
        if inside.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(format!("`{path}` leaves the served folder"));
        }
        Ok(self.root.join(inside))
    }
}

#[tool_handler]
impl ServerHandler for Files {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

fn told(path: &str, e: &std::io::Error) -> String {
    format!("`{path}`: {e}")
}

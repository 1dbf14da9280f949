-- works with builds from: 4

-- Heads of projects that are about to change hands. Without its head, no node commits to a project or reads from it.
CREATE TABLE bundoc.fenced_heads (LIKE bundoc.heads INCLUDING ALL);

-- works with builds from: 4

-- A node reads these texts whole. Rows of before are left as they are: no node reads more of one than this.
ALTER TABLE bundoc.projects
  ADD CONSTRAINT projects_file_is_bounded CHECK (octet_length(file) <= 4194304) NOT VALID,
  ADD CONSTRAINT projects_marker_is_bounded CHECK (octet_length(marker) <= 65536) NOT VALID;
ALTER TABLE bundoc.storage
  ADD CONSTRAINT storage_file_is_bounded CHECK (octet_length(file) <= 65536) NOT VALID;

-- A row of rollups is written anew by every commit that counts in its hour. On pages without room its next version goes to
-- another page, as full as the one it left, and so on: a thousand rows came to lie on two thousand pages.
ALTER TABLE usage_hours SET (fillfactor = 75);

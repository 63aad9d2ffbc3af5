-- Another generation of keys moves the version of every organization, but nothing of what it sells or to whom: a process
-- that is told so need not read all of that again. One that does not know the column yet does.
ALTER TABLE changes ADD COLUMN only_keys boolean NOT NULL DEFAULT false;

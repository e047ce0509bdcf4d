-- A history as version 0.1 wrote it (the first sample), and versions up to the change of its format.
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE events (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, clock REAL NOT NULL, kind TEXT NOT NULL, unit TEXT NOT NULL,
    run TEXT, policy TEXT, step INTEGER, action TEXT, result TEXT, obstacle TEXT, message TEXT NOT NULL,
    detail TEXT NOT NULL);
INSERT INTO "events" VALUES(1,1002.0,12.0,'decision','web.service','11111111111111111111111111111111','p',1,'log',NULL,NULL,'it said','{"held":0.0,"for":0.0,"findings":[{"condition":"anon > 40.0M","measure":"anon","value":52428800.0,"threshold":41943040.0}],"processes":[]}');
CREATE TABLE ticks (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, clock REAL NOT NULL, boot TEXT NOT NULL, units TEXT NOT NULL);
INSERT INTO "ticks" VALUES(1,1000.0,10.0,'boot','{"web.service":{"run":"11111111111111111111111111111111","inode":7,"values":{"anon":41943040,"limit":134217728,"host.available":5242880},"unknown":{"pss":"permission denied"},"at_most":{"pss":99}}}');
INSERT INTO "ticks" VALUES(2,1001.0,11.0,'boot','{"web.service":{"run":"11111111111111111111111111111111","inode":7,"values":{"anon":42991616,"limit":134217728},"unknown":{"pss":"permission denied"},"at_most":{"pss":99},"protected":"why"},"host":{"values":{"host.available":5242880},"unknown":{}}}');
INSERT INTO "ticks" VALUES(3,1002.0,12.0,'boot','{"web.service":{"run":"11111111111111111111111111111111","inode":7,"values":{"anon":44040192,"limit":134217728},"unknown":{"pss":"permission denied"},"at_most":{"pss":99},"protected":"why"},"host":{"values":{"host.available":5242880},"unknown":{}}}');
CREATE INDEX events_of_unit ON events (unit, at);
COMMIT;

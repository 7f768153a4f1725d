/*
 * supervise.h - starts the stages, keeps them running, stops them in order
 *
 * One process for each stage (config->work.workers for work), forked without exec. A stage that
 * ends unasked is started again, at once the first time, then later and later; what it held goes
 * back to the store's queues and has that counted as a crash. The supervisor itself touches neither
 * network data nor DICOM.
 *
 *   SIGTERM, SIGINT  stop: receive, plan, work, deliver, observe, each given time to put down what
 *                    it holds; a second signal ends them at once
 *   SIGHUP           load the configuration again; if it is good, restart the stages with it (the
 *                    DICOM port stays open meanwhile), else keep the old one and log why
 *
 * When the supervisor is killed, the kernel kills the stages (PR_SET_PDEATHSIG).
 */
#ifndef SPINENODE_SUPERVISE_H
#define SPINENODE_SUPERVISE_H

struct config;
struct err;
struct transport;

/* Runs the node until it is told to stop. Takes configuration and transport in any
 * case. 0, or why it could
 * not start: ERR_EXISTS (another node on this spool), ERR_NETWORK or ERR_IO (port), … */
int supervise(struct config *config, struct transport *transport, struct err *e);

#endif

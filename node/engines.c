/* engines.c - see engines.h */
#include <stdio.h>
#include <string.h>

#include "node/base/err.h"

#include "model/engine.h"
#include "node/engines.h"

bool engines_have_gpu(void)
{
    const struct engine *cuda = engine_find("cuda");
    return cuda != NULL && engine_present(cuda);
}

int engines_choose(const char *name, const struct engine **out, struct err *e)
{
    static const char *const by_speed[] = {"cuda", "cpu", "ref"};
    bool any = name == NULL || strcmp(name, "auto") == 0;
    char built[32] = "";
    for (size_t i = 0; i < sizeof by_speed / sizeof *by_speed; i++) {
        const struct engine *found = engine_find(by_speed[i]);
        if (found == NULL)
            continue;
        bool usable = i != 0 || engines_have_gpu();
        size_t n = strlen(built);
        snprintf(built + n, sizeof built - n, "%s%s", n > 0 ? ", " : "", by_speed[i]);
        if (!any && strcmp(name, by_speed[i]) == 0 && !usable)
            return err_set(e, ERR_DEVICE, "engine cuda: there is no GPU in this machine");
        if (usable && (any || strcmp(name, by_speed[i]) == 0)) {
            *out = found;
            return 0;
        }
    }
    return err_set(e, ERR_UNSUPPORTED, "engine %s is not in this build, only %s", name, built);
}

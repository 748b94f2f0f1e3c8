#include <espalier/fsa.h>
#include <math.h>

#define NAME(enumerator, name) [enumerator] = (name),
const char *const fsa_loss_names[FSA_LOSS_COUNT] = {FSA_LOSSES(NAME)};

/* e^-u overflows for margins that are far below 0. */
static double logistic_value(double u) {
    return u > 0 ? log1p(exp(-u)) : log1p(exp(u)) - u;
}

static double logistic_slope(double u) {
    return -1 / (1 + exp(u));
}

static double lorenz_value(double u) {
    return u > 1 ? 0 : log1p((u - 1) * (u - 1));
}

static double lorenz_slope(double u) {
    return u > 1 ? 0 : 2 * (u - 1) / (1 + (u - 1) * (u - 1));
}

/* Half the width of the parabola that rounds the hinge. */
static const double h = 0.1;

static double huber_svm_value(double u) {
    if (u < 1 - h)
        return 1 - u;
    return u > 1 + h ? 0 : (1 + h - u) * (1 + h - u) / (4 * h);
}

static double huber_svm_slope(double u) {
    if (u < 1 - h)
        return -1;
    return u > 1 + h ? 0 : -(1 + h - u) / (2 * h);
}

static double squared_value(double u) {
    return (1 - u) * (1 - u);
}

static double squared_slope(double u) {
    return -2 * (1 - u);
}

static const struct {
    double (*value)(double), (*slope)(double);
} losses[FSA_LOSS_COUNT] = {
    [FSA_LOGISTIC] = {logistic_value, logistic_slope},
    [FSA_LORENZ] = {lorenz_value, lorenz_slope},
    [FSA_HUBER_SVM] = {huber_svm_value, huber_svm_slope},
    [FSA_SQUARED] = {squared_value, squared_slope},
};

double fsa_loss_value(enum fsa_loss loss, double margin) {
    return losses[loss].value(margin);
}

double fsa_loss_slope(enum fsa_loss loss, double margin) {
    return losses[loss].slope(margin);
}
